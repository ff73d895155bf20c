// One chunk of tokens: from its logits the losses of each token and, where wanted, the gradient of the logits.
#pragma once
#include <ATen/core/Tensor.h>

#include "ops/linear_loss/linear_loss.h"

namespace molt::ops {

// Losses of some tokens, fp32 or fp64 (tokens); undefined where not wanted.
struct TokenLosses {
  at::Tensor cross_entropy, forward_kl, reverse_kl;
};

// Undefined tensors: what is not needed for the mix. `like` tells dtype and device.
TokenLosses empty_losses(std::int64_t tokens, const LossMix& mix, bool with_targets, const at::TensorOptions& like);

struct Chunk {
  at::Tensor logits;   // (tokens, vocabulary), fp32 or fp64; its memory is used again for the gradient
  at::Tensor teacher;  // the same of the teacher; undefined without divergences
  at::Tensor targets;  // int64 (tokens), undefined without cross-entropy
  at::Tensor weights;  // (tokens)
};

// Writes the chunk's losses into `losses` (slices of the whole) and returns d (sum of weight * loss) / d logits, or nothing.
at::Tensor chunk_losses(const Chunk& chunk, const LossMix& mix, bool gradient, const TokenLosses& losses);

}  // namespace molt::ops
