// Where training batches come from. A source is a stream of samples whose order is a function of its seed alone; its position can
// be saved and restored exactly, whatever the batch size.
#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "base/json.h"
#include "model/batch.h"

namespace molt {

class BatchSource {
 public:
  virtual ~BatchSource() = default;

  // Whole samples of the stream, laid end to end, at most `max_tokens` tokens in all and at least one sample (a longer one is cut
  // to `max_tokens`). Sources of finite data start over with a new order (an epoch). On the CPU.
  virtual PackedBatch next(std::int64_t max_tokens) = 0;

  // The position in the stream, and back to it.
  virtual Json position() const = 0;
  virtual void restore(const Json& position) = 0;
};

}  // namespace molt
