// One chunk of tokens: from its logits the losses of each token and, where wanted, the gradient of the logits.
#pragma once
#include <ATen/core/Tensor.h>

#include "ops/linear_loss/linear_loss.h"

namespace molt::ops {

// Of softmax, losses and sums: fp64 for fp64, else fp32.
at::ScalarType sum_dtype(const at::Tensor& tensor);

// What linear_loss is given, checked: MOLT_CHECK fails.
void check_linear_loss(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
                       const at::Tensor& loss_weights, const LossMix& mix, const TeacherHead& teacher);

// Losses of some tokens, fp32 or fp64 (tokens); undefined where not wanted.
struct TokenLosses {
  at::Tensor cross_entropy, forward_kl, reverse_kl, jsd, log_sums;  // the last: log(sum of exp(logits)), for the z-loss
};

// Undefined tensors: what is not needed for the mix. `like` tells dtype and device.
TokenLosses empty_losses(std::int64_t tokens, const LossMix& mix, bool with_targets, const at::TensorOptions& like);

struct Chunk {
  at::Tensor logits;   // (tokens, vocabulary), fp32 or fp64
  at::Tensor teacher;  // the same of the teacher; undefined without divergences
  at::Tensor targets;  // int64 (tokens), undefined without cross-entropy
  at::Tensor weights;  // (tokens), fp32 or fp64
  at::Tensor
      slope;  // gets d (sum of weight * loss) / d logits; undefined where not wanted. The logits' own memory, or on a GPU bf16
};

// Writes the chunk's losses into `losses` (slices of the whole), and its slope.
void chunk_losses(const Chunk& chunk, const LossMix& mix, const TokenLosses& losses);

// The same where the teacher is known by its `top` (rows of the chunk's tokens). chunk.teacher is room of the logits' shape and
// type, whose content is lost, and so are the logits.
void top_chunk_losses(const Chunk& chunk, const TopProbabilities& top, const LossMix& mix, const TokenLosses& losses);

}  // namespace molt::ops
