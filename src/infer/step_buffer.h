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
  std::int32_t follows = -1;             // not negative: its one token is the follows-th that the step before draws
  std::int64_t context = 0;              // tokens in its cache already
  const CachePool::Lease* lease = nullptr;
};

class StepBuffer {
 public:
  StepBuffer(at::Device device, std::int64_t block_size) : device_(device), block_size_(block_size) {}

  // Valid until the next call. On a GPU one step may still be running, not two. With `rows` beyond the items, as many sequences
  // of nobody follow, of one token each: their slots and contexts are -1.
  const Step& build(std::span<const StepItem> items, std::int64_t rows = 0);
  // One a token, as in StepItem; int32 on the device.
  const at::Tensor& follows() const { return follows_on_device_; }

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
  // All index tensors, one behind the other, so that one copy brings them to a GPU; on the host two in turns, as a copy may still
  // be under way.
  at::Tensor host_[2], on_device_, follows_on_device_;
  int turn_ = 0;
  // Offsets into them.
  struct Places {
    std::int64_t tokens, positions, slots, states, contexts, offsets, table, follows;
  } places_ = {};
};

}  // namespace molt
