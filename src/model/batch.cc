#include "model/batch.h"

#include <ATen/Functions.h>

#include "base/error.h"
#include "ops/linear_loss/linear_loss.h"

namespace molt {

PackedBatch PackedBatch::to(at::Device target) const {
  PackedBatch moved = *this;
  for (at::Tensor* tensor :
       {&moved.tokens, &moved.targets, &moved.loss_weights, &moved.loss_tokens, &moved.positions, &moved.sequences.cu_seqlens}) {
    if (!tensor->defined()) continue;
    // From memory that is not pinned, the copy would wait for all the work that the GPU still has to do.
    const bool pin = target.is_cuda() && tensor->is_cpu();
    *tensor = pin ? tensor->pin_memory().to(target, /*non_blocking=*/true) : tensor->to(target);
  }
  moved.rotary = {};
  return moved;
}

PackedBatch PackedBatch::of(const std::vector<Sample>& samples) {
  std::vector<std::int32_t> lengths;
  for (const Sample& sample : samples) {
    MOLT_CHECK(sample.weights.empty() || sample.weights.size() == sample.tokens.size(), sample.weights.size(), " weights for ",
               sample.tokens.size(), " tokens");
    lengths.push_back(static_cast<std::int32_t>(sample.tokens.size()));
  }
  PackedBatch batch;
  for (const Sample& sample : samples) batch.origins.push_back(sample.origin);
  batch.sequences = Sequences::of(lengths);
  const std::int64_t size = batch.size();
  batch.tokens = at::empty({size}, at::kLong);
  batch.targets = at::empty({size}, at::kLong);
  batch.loss_weights = at::empty({size}, at::kFloat);
  batch.loss_tokens = at::empty({size}, at::kLong);
  batch.positions = at::empty({size}, at::kLong);

  auto* tokens = batch.tokens.mutable_data_ptr<std::int64_t>();
  auto* targets = batch.targets.mutable_data_ptr<std::int64_t>();
  auto* weights = batch.loss_weights.mutable_data_ptr<float>();
  auto* loss_tokens = batch.loss_tokens.mutable_data_ptr<std::int64_t>();
  auto* positions = batch.positions.mutable_data_ptr<std::int64_t>();
  std::int64_t row = 0, loss_tokens_count = 0;
  for (const Sample& sample : samples) {
    const std::size_t length = sample.tokens.size();
    for (std::size_t i = 0; i < length; ++i, ++row) {
      const bool last = i + 1 == length;
      tokens[row] = sample.tokens[i];
      targets[row] = last ? ops::ignored_target : sample.tokens[i + 1];
      weights[row] = last ? 0.0f : sample.weights.empty() ? 1.0f : sample.weights[i + 1];
      positions[row] = static_cast<std::int64_t>(i);
      batch.loss_weight += weights[row];
      if (weights[row] != 0) loss_tokens[loss_tokens_count++] = row;
    }
  }
  batch.loss_tokens = batch.loss_tokens.narrow(0, 0, loss_tokens_count);
  return batch;
}

}  // namespace molt
