// The output head and its loss in one pass over chunks of tokens: logits = hidden weight^T live for one chunk at a time, of the
// student and of the teacher, so no (tokens, vocabulary) tensor is kept. The gradient is formed in the same pass and scaled in
// backward.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace molt::ops {

// Targets of this value carry no loss (as in transformers).
inline constexpr std::int64_t ignored_target = -100;

// What a token's loss is made of: cross_entropy * CE + forward_kl * KL(teacher || student) + reverse_kl * KL(student || teacher).
// Both divergences are of the distributions softmax(logits / temperature), without a further factor of temperature^2; CE is at
// temperature 1.
struct LossMix {
  double cross_entropy = 0;
  double forward_kl = 0;
  double reverse_kl = 0;
  double temperature = 1;
};

// The teacher of the divergences: its final hidden states (tokens, teacher_hidden) and head (vocabulary, teacher_hidden). Never
// differentiated. Undefined where the mix has no divergence.
struct TeacherHead {
  at::Tensor hidden, weight;
};

struct LossResult {
  at::Tensor sum;            // scalar: sum over tokens of loss_weight * loss; the only differentiable part
  at::Tensor cross_entropy;  // (tokens) each token's parts, detached and not weighted, 0 for tokens without weight; undefined for
                             // a part that
  at::Tensor forward_kl;     // has no coefficient in the mix (cross_entropy is there whenever targets are)
  at::Tensor reverse_kl;
  std::int64_t tokens = 0;  // how many tokens carried weight
};

// hidden (tokens, hidden), weight (vocabulary, hidden), targets int64 (tokens) (may be undefined without cross-entropy),
// loss_weights fp32 (tokens) (undefined: one each). Tokens whose weight is 0 or whose target is ignored_target cost nothing: they
// are taken out before the first product. (Targets, where given, drop tokens from the divergences too.) Softmax and losses are
// fp32 (fp64 for fp64). The caller divides by the count of loss tokens over all micro-batches. Differentiable in hidden and
// weight.
LossResult linear_loss(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
                       const at::Tensor& loss_weights, const LossMix& mix, const TeacherHead& teacher = {});

// linear_loss with cross-entropy alone.
LossResult linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
                                const at::Tensor& loss_weights = {});

// Log-probability of each target: fp32 (tokens), 0 where the target is ignored_target. Chunked; not differentiable.
at::Tensor log_probs(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets);

// Rows that the head multiplies at once for this vocabulary on this device, so that a chunk's logits keep within a few tens of MB
// (CPU) or some hundreds (CUDA).
std::int64_t loss_chunk_rows(std::int64_t vocabulary, at::Device device);

// The same in plain LibTorch calls over all tokens at once, differentiated by LibTorch: the reference in tests.
LossResult linear_loss_composite(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
                                 const at::Tensor& loss_weights, const LossMix& mix, const TeacherHead& teacher = {});

}  // namespace molt::ops
