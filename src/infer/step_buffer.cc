#include "infer/step_buffer.h"

#include <ATen/Functions.h>

#include <algorithm>

#include "base/error.h"

namespace molt {

void StepBuffer::lay_out(const Shape& shape) {
  shape_ = shape;
  constexpr std::int64_t alignment = 64;
  std::int64_t bytes = 0;
  const auto reserve = [&](std::int64_t count, std::int64_t size) {
    const std::int64_t begin = bytes;
    bytes = (begin + count * size + alignment - 1) / alignment * alignment;
    return begin;
  };
  const std::int64_t tokens = reserve(shape.tokens, 8), positions = reserve(shape.tokens, 8);
  const std::int64_t slots = reserve(shape.tokens, 8), states = reserve(shape.sequences, 8);
  const std::int64_t contexts = reserve(shape.sequences, 4), offsets = reserve(shape.sequences + 1, 4);
  const std::int64_t table = reserve(shape.sequences * shape.blocks, 4);

  host_ = at::empty({bytes}, at::TensorOptions(at::kCPU).dtype(at::kByte).pinned_memory(device_.is_cuda()));
  on_device_ = device_.is_cpu() ? host_ : at::empty({bytes}, at::TensorOptions(device_).dtype(at::kByte));
  const auto view = [&](std::int64_t begin, std::int64_t count, at::ScalarType dtype) {
    const auto size = static_cast<std::int64_t>(c10::elementSize(dtype));
    return on_device_.narrow(0, begin, count * size).view(dtype);
  };
  step_ = {};
  step_.tokens = view(tokens, shape.tokens, at::kLong);
  step_.positions = view(positions, shape.tokens, at::kLong);
  step_.slot_mapping = view(slots, shape.tokens, at::kLong);
  step_.state_slots = view(states, shape.sequences, at::kLong);
  step_.context_lens = view(contexts, shape.sequences, at::kInt);
  step_.sequences.cu_seqlens = view(offsets, shape.sequences + 1, at::kInt);
  step_.block_table = view(table, shape.sequences * shape.blocks, at::kInt).view({shape.sequences, shape.blocks});
  step_.contexts.resize(static_cast<std::size_t>(shape.sequences));
  step_.sequences.offsets.resize(static_cast<std::size_t>(shape.sequences + 1));
  if (device_.is_cpu()) step_.state_slots_host.resize(static_cast<std::size_t>(shape.sequences));

  auto* base = static_cast<char*>(host_.mutable_data_ptr());
  const auto long_at = [&](std::int64_t begin) { return reinterpret_cast<std::int64_t*>(base + begin); };
  const auto int_at = [&](std::int64_t begin) { return reinterpret_cast<std::int32_t*>(base + begin); };
  tokens_ = long_at(tokens), positions_ = long_at(positions), slots_ = long_at(slots), states_ = long_at(states);
  contexts_ = int_at(contexts), offsets_ = int_at(offsets), table_ = int_at(table);
}

const Step& StepBuffer::build(std::span<const StepItem> items) {
  Shape shape{0, static_cast<std::int64_t>(items.size()), 0};
  for (const StepItem& item : items) {
    shape.tokens += static_cast<std::int64_t>(item.tokens.size());
    shape.blocks = std::max(shape.blocks, static_cast<std::int64_t>(item.lease->blocks.size()));
  }
  MOLT_CHECK(shape.tokens > 0, "a step without tokens");
  if (shape != shape_) lay_out(shape);

  std::int64_t row = 0, longest = 0;
  for (std::size_t i = 0; i < items.size(); ++i) {
    const StepItem& item = items[i];
    const auto& blocks = item.lease->blocks;
    offsets_[i] = static_cast<std::int32_t>(row);
    contexts_[i] = static_cast<std::int32_t>(item.context);
    states_[i] = item.lease->state_slot;
    std::int32_t* table_row = table_ + static_cast<std::int64_t>(i) * shape.blocks;
    std::fill(std::copy(blocks.begin(), blocks.end(), table_row), table_row + shape.blocks, 0);
    std::int64_t position = item.context;
    for (const std::int32_t token : item.tokens) {
      tokens_[row] = token;
      positions_[row] = position;
      slots_[row] = blocks[static_cast<std::size_t>(position / block_size_)] * block_size_ + position % block_size_;
      ++row, ++position;
    }
    longest = std::max(longest, static_cast<std::int64_t>(item.tokens.size()));
  }
  offsets_[items.size()] = static_cast<std::int32_t>(row);

  step_.sequences.max_length = longest;
  std::copy_n(offsets_, items.size() + 1, step_.sequences.offsets.begin());
  std::copy_n(contexts_, items.size(), step_.contexts.begin());
  std::copy_n(states_, step_.state_slots_host.size(), step_.state_slots_host.begin());
  if (!device_.is_cpu()) on_device_.copy_(host_, /*non_blocking=*/true);
  return step_;
}

}  // namespace molt
