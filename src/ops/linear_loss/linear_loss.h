// The output head and its loss in one pass over chunks of tokens: logits = hidden weight^T live for one chunk at a time, of the
// student and of the teacher, so no (tokens, vocabulary) tensor is kept. The gradient is formed in the same pass and scaled in
// backward.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

#include "ops/linear_loss/loss_mix.h"
#include "ops/linear_loss/top_probabilities.h"

namespace molt::ops {

// Targets of this value carry no loss (as in transformers).
inline constexpr std::int64_t ignored_target = -100;

// The teacher of the divergences: its final hidden states (tokens, teacher_hidden) and head (vocabulary, teacher_hidden), or in
// their place what is left of its distributions at the mix's temperature. Never differentiated. Undefined where the mix has no
// divergence.
struct TeacherHead {
  at::Tensor hidden, weight;
  TopProbabilities top = {};
};

struct LossResult {
  at::Tensor sum;            // scalar: sum over tokens of loss_weight * loss; the only differentiable part
  at::Tensor cross_entropy;  // (tokens) each token's parts, detached and not weighted, 0 for tokens without weight; undefined for
                             // a part that
  at::Tensor forward_kl;     // has no coefficient in the mix (cross_entropy is there whenever targets are)
  at::Tensor reverse_kl;
  at::Tensor jsd;
  at::Tensor z_loss;        // log(sum of exp(logits))^2
  std::int64_t tokens = 0;  // how many tokens carried weight
};

// (tokens) each token's part of the loss that is a divergence, by the mix that the result was made with; undefined without one.
at::Tensor weighted_divergence(const LossResult& result, const LossMix& mix);

struct LossOptions {
  // int64, ascending, on hidden's device: the tokens that carry loss. Undefined: found from targets and weights, which waits for
  // a GPU.
  at::Tensor tokens = {};
  // The head's gradient is added to weight.grad(), which must exist, during the call itself (in fp32 where that is fp32) instead
  // of being kept for backward. The sum must then be differentiated exactly once and with a slope of one.
  bool add_weight_gradient = false;
};

// hidden (tokens, hidden), weight (vocabulary, hidden), targets int64 (tokens) (may be undefined without cross-entropy),
// loss_weights fp32 (tokens) (undefined: one each). Tokens whose weight is 0 or whose target is ignored_target cost nothing: they
// are taken out before the first product. (Targets, where given, drop tokens from the divergences too.) Softmax and losses are
// fp32 (fp64 for fp64), and so are logits; on a GPU the gradients of logits are rounded to bf16 where weights are bf16. A target
// outside the vocabulary is an error on the CPU and makes the loss NaN on a GPU. With a teacher's k largest probabilities, both
// models' other tokens count as one in the divergences: an outcome of k + 1. The caller divides by the count of loss tokens
// over all micro-batches. Differentiable in hidden and weight.
LossResult linear_loss(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
                       const at::Tensor& loss_weights, const LossMix& mix, const TeacherHead& teacher = {},
                       const LossOptions& options = {});

// linear_loss with cross-entropy alone.
LossResult linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
                                const at::Tensor& loss_weights = {}, const LossOptions& options = {});

// Log-probability of each target: fp32 (tokens), 0 where the target is ignored_target. Chunked; not differentiable.
at::Tensor log_probs(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets);

// The same in plain LibTorch calls over all tokens at once, differentiated by LibTorch: the reference in tests.
LossResult linear_loss_composite(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
                                 const at::Tensor& loss_weights, const LossMix& mix, const TeacherHead& teacher = {});

}  // namespace molt::ops
