#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include <cmath>
#include <limits>

#include "ops/linear_loss/linear_loss.h"
#include "ops/linear_loss/loss_chunk.h"

namespace molt::ops {

namespace linear_loss_plain {

// Logarithms of the probabilities that the divergences compare: (tokens, outcomes) of student and teacher.
struct Compared {
  at::Tensor student, teacher;
};

Compared compared(const at::Tensor& logits, const LossMix& mix, const TeacherHead& teacher) {
  const at::Tensor student = (logits / mix.temperature).log_softmax(1);
  if (!teacher.top.defined()) {
    const at::Tensor theirs = teacher.hidden.matmul(teacher.weight.t()).to(logits.scalar_type());
    return {student, (theirs / mix.temperature).log_softmax(1).detach()};
  }
  const at::Tensor ids = teacher.top.ids.to(at::kLong), chosen = student.gather(1, ids);
  const std::int64_t k = ids.size(1);
  const at::Tensor theirs = teacher.top.log_probs.to(logits.scalar_type());
  if (k == logits.size(1)) return {chosen, theirs.slice(1, 0, k).log_softmax(1).detach()};
  const at::Tensor others = student.scatter(1, ids, -std::numeric_limits<double>::infinity()).logsumexp(1, /*keepdim=*/true);
  return {at::cat({chosen, others}, 1), theirs.log_softmax(1).detach()};
}

}  // namespace linear_loss_plain

LossResult linear_loss_composite(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
                                 const at::Tensor& loss_weights, const LossMix& mix, const TeacherHead& teacher) {
  check_linear_loss(hidden, weight, targets, loss_weights, mix, teacher);
  const at::ScalarType dtype = sum_dtype(hidden);
  at::Tensor weights =
      loss_weights.defined() ? loss_weights.to(dtype) : at::ones({hidden.size(0)}, hidden.options().dtype(dtype));
  if (targets.defined()) weights = weights * targets.ne(ignored_target);
  const at::Tensor counts = weights.ne(0), logits = hidden.matmul(weight.t()).to(dtype);
  LossResult result;
  result.tokens = counts.sum().item<std::int64_t>();
  result.sum = at::zeros({}, weights.options());
  const auto add = [&](const at::Tensor& loss, double coefficient) -> at::Tensor {
    result.sum = result.sum + coefficient * (loss * weights).sum();
    return loss.detach() * counts;
  };
  if (targets.defined()) {
    const at::Tensor chosen = logits.log_softmax(1).gather(1, targets.clamp_min(0).unsqueeze(1)).squeeze(1);
    result.cross_entropy = add(-chosen, mix.cross_entropy);
  }
  if (mix.z != 0) result.z_loss = add(logits.logsumexp(1).square(), mix.z);
  if (mix.diverges()) {
    const auto [s, t] = linear_loss_plain::compared(logits, mix, teacher);
    if (mix.forward_kl != 0) result.forward_kl = add((t.exp() * (t - s)).sum(1), mix.forward_kl);
    if (mix.reverse_kl != 0) result.reverse_kl = add((s.exp() * (s - t)).sum(1), mix.reverse_kl);
    if (mix.jsd != 0) {
      const at::Tensor m = at::logaddexp(t + std::log(mix.beta), s + std::log(1 - mix.beta));
      const at::Tensor divergence = mix.beta * t.exp() * (t - m) + (1 - mix.beta) * s.exp() * (s - m);
      result.jsd = add(divergence.sum(1), mix.jsd);
    }
  }
  return result;
}

}  // namespace molt::ops
