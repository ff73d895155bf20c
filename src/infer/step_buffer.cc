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
  places_ = {.tokens = reserve(shape.tokens, 8),
             .positions = reserve(shape.tokens, 8),
             .slots = reserve(shape.tokens, 8),
             .states = reserve(shape.sequences, 8),
             .contexts = reserve(shape.sequences, 4),
             .offsets = reserve(shape.sequences + 1, 4),
             .table = reserve(shape.sequences * shape.blocks, 4),
             .follows = reserve(shape.tokens, 4)};

  for (at::Tensor& host : host_)
    host = at::empty({bytes}, at::TensorOptions(at::kCPU).dtype(at::kByte).pinned_memory(device_.is_cuda()));
  on_device_ = device_.is_cpu() ? host_[0] : at::empty({bytes}, at::TensorOptions(device_).dtype(at::kByte));
  const auto view = [&](std::int64_t begin, std::int64_t count, at::ScalarType dtype) {
    const auto size = static_cast<std::int64_t>(c10::elementSize(dtype));
    return on_device_.narrow(0, begin, count * size).view(dtype);
  };
  step_ = {};
  step_.tokens = view(places_.tokens, shape.tokens, at::kLong);
  step_.positions = view(places_.positions, shape.tokens, at::kLong);
  step_.slot_mapping = view(places_.slots, shape.tokens, at::kLong);
  step_.state_slots = view(places_.states, shape.sequences, at::kLong);
  step_.context_lens = view(places_.contexts, shape.sequences, at::kInt);
  step_.sequences.cu_seqlens = view(places_.offsets, shape.sequences + 1, at::kInt);
  step_.block_table = view(places_.table, shape.sequences * shape.blocks, at::kInt).view({shape.sequences, shape.blocks});
  follows_on_device_ = view(places_.follows, shape.tokens, at::kInt);
  step_.contexts.resize(static_cast<std::size_t>(shape.sequences));
  step_.sequences.offsets.resize(static_cast<std::size_t>(shape.sequences + 1));
  if (device_.is_cpu()) step_.state_slots_host.resize(static_cast<std::size_t>(shape.sequences));
}

const Step& StepBuffer::build(std::span<const StepItem> items, std::int64_t rows) {
  const auto count = static_cast<std::int64_t>(items.size()), nobody = std::max<std::int64_t>(rows - count, 0);
  Shape shape{nobody, count + nobody, 0};
  for (const StepItem& item : items) {
    shape.tokens += static_cast<std::int64_t>(item.tokens.size());
    shape.blocks = std::max(shape.blocks, static_cast<std::int64_t>(item.lease->blocks.size()));
  }
  MOLT_CHECK(count > 0 && shape.tokens > nobody, "a step without tokens");
  if (shape != shape_) lay_out(shape);

  turn_ = device_.is_cpu() ? 0 : 1 - turn_;
  auto* base = static_cast<char*>(host_[turn_].mutable_data_ptr());
  const auto longs = [&](std::int64_t begin) { return reinterpret_cast<std::int64_t*>(base + begin); };
  const auto ints = [&](std::int64_t begin) { return reinterpret_cast<std::int32_t*>(base + begin); };
  std::int64_t *tokens = longs(places_.tokens), *positions = longs(places_.positions), *slots = longs(places_.slots),
               *states = longs(places_.states);
  std::int32_t *contexts = ints(places_.contexts), *offsets = ints(places_.offsets), *table = ints(places_.table),
               *follows = ints(places_.follows);

  std::int64_t row = 0, longest = 1;
  for (std::int64_t i = 0; i < count; ++i) {
    const StepItem& item = items[static_cast<std::size_t>(i)];
    const auto& blocks = item.lease->blocks;
    offsets[i] = static_cast<std::int32_t>(row);
    contexts[i] = static_cast<std::int32_t>(item.context);
    states[i] = item.lease->state_slot;
    std::int32_t* table_row = table + i * shape.blocks;
    std::fill(std::copy(blocks.begin(), blocks.end(), table_row), table_row + shape.blocks, 0);
    std::int64_t position = item.context;
    for (const std::int32_t token : item.tokens) {
      tokens[row] = token;
      positions[row] = position;
      slots[row] = blocks[static_cast<std::size_t>(position / block_size_)] * block_size_ + position % block_size_;
      follows[row] = item.follows;
      ++row, ++position;
    }
    longest = std::max(longest, static_cast<std::int64_t>(item.tokens.size()));
  }
  for (std::int64_t i = count; i < shape.sequences; ++i, ++row) {
    offsets[i] = static_cast<std::int32_t>(row);
    tokens[row] = positions[row] = 0;
    slots[row] = states[i] = contexts[i] = follows[row] = -1;
    std::fill_n(table + i * shape.blocks, shape.blocks, 0);
  }
  offsets[shape.sequences] = static_cast<std::int32_t>(row);

  step_.sequences.max_length = longest;
  std::copy_n(offsets, shape.sequences + 1, step_.sequences.offsets.begin());
  std::copy_n(contexts, shape.sequences, step_.contexts.begin());
  std::copy_n(states, step_.state_slots_host.size(), step_.state_slots_host.begin());
  if (!device_.is_cpu()) on_device_.copy_(host_[turn_], /*non_blocking=*/true);
  return step_;
}

}  // namespace molt
