// The index tensors of one step, written in place from step to step: decoding makes thousands of them a second, all of one shape.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "infer/cache_pool.h"
#include "model/step.h"

namespace molt {

// What one sequence brings to a step.
struct StepItem {
  std::span<const std::int32_t> tokens;  // new ones, at least one
  std::int64_t context = 0;              // tokens in its cache already
  const CachePool::Lease* lease = nullptr;
};

class StepBuffer {
 public:
  StepBuffer(at::Device device, std::int64_t block_size) : device_(device), block_size_(block_size) {}

  // Valid until the next call. The device must have finished the step before (sampling waits for it).
  const Step& build(std::span<const StepItem> items);

 private:
  struct Shape {
    std::int64_t tokens = 0, sequences = 0, blocks = 0;
    bool operator==(const Shape&) const = default;
  };
  void lay_out(const Shape& shape);

  at::Device device_;
  std::int64_t block_size_;
  Shape shape_;
  Step step_;
  at::Tensor host_, on_device_;  // all index tensors, one behind the other, so that one copy brings them to a GPU
  // Into host_.
  std::int64_t *tokens_ = nullptr, *positions_ = nullptr, *slots_ = nullptr, *states_ = nullptr;
  std::int32_t *contexts_ = nullptr, *offsets_ = nullptr, *table_ = nullptr;
};

}  // namespace molt
