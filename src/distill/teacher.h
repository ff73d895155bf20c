// Who is distilled from: a source of next-token distributions for a batch, be it a model in memory or what one left on disk.
#pragma once
#include <cstdint>
#include <memory>

#include "distill/stored_logits.h"
#include "model/model.h"
#include "ops/linear_loss/linear_loss.h"

namespace molt {

class Teacher {
 public:
  virtual ~Teacher() = default;
  virtual std::int64_t vocabulary() const = 0;
  // For every token of the batch that carries loss, on the batch's device.
  virtual ops::TeacherHead targets(const PackedBatch& batch) const = 0;
  // Of one token at a context.
  virtual double flops(std::int64_t context) const = 0;
};

std::shared_ptr<const Teacher> live_teacher(std::shared_ptr<const Model> model);
std::shared_ptr<const Teacher> stored_teacher(std::shared_ptr<const StoredLogits> logits);
// A model of which no more is known than its k largest probabilities at a temperature, rounded as they are on disk.
std::shared_ptr<const Teacher> shortened_teacher(std::shared_ptr<const Model> model, std::int64_t k, double temperature);

}  // namespace molt
