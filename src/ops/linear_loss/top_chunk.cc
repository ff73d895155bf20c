#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include <limits>

#include "ops/linear_loss/loss_chunk.h"

namespace molt::ops {

namespace top_chunk {

// Of no tokens at all: finite, so that student and teacher can agree on it, and far above what the kernels pad rows with, beside
// which nothing but padding may be as small.
at::Tensor finite(const at::Tensor& log_sums) {
  return log_sums.clamp_min(-1e6);
}

}  // namespace top_chunk

// The tokens S that are not among the k act as one more token, whose logit is r = T log(sum over S of exp(logit / T)) at the
// temperature T: the loss over k + 1 outcomes is that of k + 1 logits. d r / d logit[v] = exp((logit[v] - r) / T), for v in S,
// takes its slope back to the vocabulary.
void top_chunk_losses(const Chunk& chunk, const TopProbabilities& top, const LossMix& mix, const TokenLosses& losses) {
  const at::Tensor ids = top.ids.to(at::kLong);
  const std::int64_t k = ids.size(1);
  at::Tensor dense = chunk.teacher;
  at::mul_out(dense, chunk.logits, at::scalar_tensor(1 / mix.temperature, at::kDouble));
  dense.scatter_(1, ids, -std::numeric_limits<double>::infinity());
  // In place: LibTorch's logsumexp takes as much memory again.
  const at::Tensor most = top_chunk::finite(dense.amax(1, /*keepdim=*/true));
  const at::Tensor sum = dense.sub_(most).exp_().sum(1, /*keepdim=*/true);  // from 1 up, the largest one's part; 0 of none
  const at::Tensor others = top_chunk::finite(sum.log() + most);

  const bool wanted = chunk.slope.defined(), plain = mix.cross_entropy != 0 || mix.z != 0;
  const at::Tensor outcomes = at::cat({chunk.logits.gather(1, ids), others * mix.temperature}, 1);
  LossMix divergences = mix;
  divergences.cross_entropy = divergences.z = 0;
  chunk_losses({.logits = outcomes,
                .teacher = top_chunk::finite(top.log_probs.to(outcomes.scalar_type())) * mix.temperature,
                .targets = {},
                .weights = chunk.weights,
                .slope = wanted ? outcomes : at::Tensor()},
               divergences, {{}, losses.forward_kl, losses.reverse_kl, losses.jsd, {}});
  if (wanted) {
    dense.mul_(outcomes.slice(1, k) / sum.clamp_min(1));
    dense.scatter_(1, ids, outcomes.slice(1, 0, k));
  }
  if (chunk.targets.defined()) {
    chunk_losses({.logits = chunk.logits,
                  .teacher = {},
                  .targets = chunk.targets,
                  .weights = chunk.weights,
                  .slope = wanted && plain ? chunk.logits : at::Tensor()},
                 {.cross_entropy = mix.cross_entropy, .z = mix.z}, {losses.cross_entropy, {}, {}, {}, losses.log_sums});
    if (wanted && plain) dense.add_(chunk.logits);
  }
  if (wanted) at::Tensor(chunk.slope).copy_(dense);
}

}  // namespace molt::ops
