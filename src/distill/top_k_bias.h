// What distilling from a teacher's k largest probabilities alone changes: loss and gradient beside the exact ones.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "model/batch.h"
#include "model/model.h"

namespace molt {

struct TopKBias {
  std::string loss;  // "reverse_kl", "forward_kl", "jsd"
  std::int64_t k = 0;
  double outside = 0;         // mean of the probability that the teacher gives all tokens but the k most probable ones
  double exact = 0;           // mean over loss tokens, over the whole vocabulary
  double shortened = 0;       // the same over k + 1 outcomes, with logarithms rounded as they are on disk
  double gradient_error = 0;  // norm of the difference of both gradients by all parameters, divided by the exact one's norm
  double cosine = 0;          // between both gradients

  double loss_error() const { return (shortened - exact) / exact; }
};

struct TopKReport {
  std::int64_t tokens = 0;        // with loss
  std::vector<TopKBias> figures;  // by loss, then by k
  OrderedJson to_json() const;
};

// Over fixed batches (on the CPU); the gradients are those of the mean loss over all of them. The student's parameters move into
// flat buffers and get gradients. UserError for a k outside 1 … vocabulary.
TopKReport top_k_bias(Model& student, const std::shared_ptr<const Model>& teacher, const std::vector<PackedBatch>& batches,
                      const std::vector<std::int64_t>& ks);

}  // namespace molt
