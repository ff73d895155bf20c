#include "ops/linear_loss/loss_memory.h"

#include <ATen/Functions.h>

#include <algorithm>

namespace molt::ops {

namespace loss_memory {

constexpr std::int64_t kSlopeBytes = 2;

std::int64_t multiple(std::int64_t value, std::int64_t of) {
  return (value + of - 1) / of * of;
}

// Where the logits of a part that ends at the chunk's row `end` begin: behind the gradients that the chunk has by then.
std::int64_t logits_begin(std::int64_t end, std::int64_t vocabulary, bool own_slope) {
  return own_slope ? multiple(end * vocabulary * kSlopeBytes, 256) : 0;
}

std::int64_t even(std::int64_t tokens, std::int64_t most, std::int64_t step) {
  const std::int64_t chunks = std::max<std::int64_t>(1, (tokens + most - 1) / most);
  return std::min(tokens, multiple((tokens + chunks - 1) / chunks, step));
}

// Gradients in memory of their own leave ever less of it to the logits of a chunk's next part. A chunk is as long as its last
// part allows: a product that adds to the head's gradient reads and writes all of that, and products for few tokens are slow.
void cut(LossChunks& chunks, std::int64_t tokens, std::int64_t budget, std::int64_t logits, std::int64_t slope) {
  // Multiples that leave no tile of LibTorch's products on an H100 or H200 half empty: 5 to 10 % of their speed.
  constexpr std::int64_t large = 1024, small = 256;
  const auto most = [&](std::int64_t last) { return (budget - last * logits) / slope / large * large; };
  const std::int64_t rows = most(most(2 * small) >= large ? 2 * small : small), fit = budget / (logits + slope) / small * small;
  chunks.rows = rows >= large ? even(tokens, rows, large) : even(tokens, std::max(small, fit), small);
  const std::int64_t third = multiple((chunks.rows + 2) / 3, small);  // longer parts are no faster
  for (std::int64_t done = 0; done < chunks.rows; done += chunks.parts.back()) {
    const std::int64_t room = (budget - done * slope) / (logits + slope) / small * small;
    chunks.parts.push_back(std::min(chunks.rows - done, std::clamp(room, small, third)));
  }
}

}  // namespace loss_memory

LossChunks loss_chunks(std::int64_t tokens, std::int64_t vocabulary, bool teacher, bool gradient, at::ScalarType dtype,
                       at::Device device) {
  using namespace loss_memory;
  // Logits are fp32 whatever the weights are: rounded to bf16, those of student and teacher differ by a tenth of what a good
  // student still has to learn. Only their gradient may be rounded.
  LossChunks chunks;
  chunks.own_slope = gradient && device.is_cuda() && dtype == at::kBFloat16;
  const std::int64_t budget = device.is_cuda() ? 1'490'000'000 : 64 << 20, step = device.is_cuda() ? 256 : 64;
  const std::int64_t row = std::max<std::int64_t>(1, vocabulary),
                     logits = row * (teacher ? 2 : 1) * (dtype == at::kDouble ? 8 : 4);
  if (chunks.own_slope) {
    cut(chunks, tokens, budget, logits, row * kSlopeBytes);
  } else {
    const std::int64_t fit = std::max<std::int64_t>(256, budget / logits / step * step);
    chunks.rows = even(tokens, device.is_cuda() ? fit : std::min<std::int64_t>(fit, 4096), step);
    chunks.parts = {chunks.rows};
  }
  std::int64_t end = 0;
  for (const std::int64_t part : chunks.parts) {
    end += part;
    chunks.bytes = std::max(chunks.bytes, static_cast<double>(logits_begin(end, row, chunks.own_slope) + part * logits));
  }
  return chunks;
}

LossMemory::LossMemory(const LossChunks& chunks, std::int64_t vocabulary, at::ScalarType dtype, at::Device device)
    : bytes_(at::empty({static_cast<std::int64_t>(chunks.bytes)}, at::TensorOptions(device).dtype(at::kByte))),
      rows_(chunks.rows),
      vocabulary_(vocabulary),
      dtype_(dtype),
      own_slope_(chunks.own_slope) {}

at::Tensor LossMemory::rows(std::int64_t at_byte, std::int64_t count, at::ScalarType dtype) const {
  const auto size = static_cast<std::int64_t>(at::elementSize(dtype)) * count * vocabulary_;
  return bytes_.narrow(0, at_byte, size).view(dtype).view({count, vocabulary_});
}

at::Tensor LossMemory::slope() const {
  return rows(0, rows_, own_slope_ ? at::kBFloat16 : dtype_);
}

at::Tensor LossMemory::logits(std::int64_t begin, std::int64_t end, bool of_teacher) const {
  const std::int64_t count = end - begin, size = count * vocabulary_ * static_cast<std::int64_t>(at::elementSize(dtype_));
  return rows(loss_memory::logits_begin(end, vocabulary_, own_slope_) + (of_teacher ? size : 0), count, dtype_);
}

}  // namespace molt::ops
