#include "ops/linear_loss/loss_chunk.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include "base/error.h"
#include "ops/linear_loss/linear_loss_cpu.h"

namespace molt::ops {

namespace loss_chunk {

template <class T>
T* data(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.mutable_data_ptr<T>() : nullptr;
}

template <class T>
void on_cpu(const Chunk& chunk, const LossMix& mix, bool gradient, const TokenLosses& losses) {
  loss_rows_cpu(LossRows<T>{.rows = chunk.logits.size(0),
                            .vocabulary = chunk.logits.size(1),
                            .logits = data<T>(chunk.logits),
                            .teacher = data<T>(chunk.teacher),
                            .targets = chunk.targets.defined() ? chunk.targets.const_data_ptr<std::int64_t>() : nullptr,
                            .weights = data<T>(chunk.weights),
                            .mix = mix,
                            .gradient = gradient,
                            .cross_entropy = data<T>(losses.cross_entropy),
                            .forward_kl = data<T>(losses.forward_kl),
                            .reverse_kl = data<T>(losses.reverse_kl)});
}

// The same formulas as the CPU kernel's, in LibTorch's operations.
at::Tensor composed(const Chunk& chunk, const LossMix& mix, bool gradient, const TokenLosses& losses) {
  const at::Tensor weights = chunk.weights.unsqueeze(1);
  at::Tensor slope, plain;
  if (chunk.targets.defined()) {
    plain = chunk.logits.log_softmax(1);
    const at::Tensor targets = chunk.targets.unsqueeze(1);
    losses.cross_entropy.copy_(plain.gather(1, targets).squeeze(1).neg_());
    if (gradient && mix.cross_entropy != 0) {
      slope = plain.exp().mul_(weights * mix.cross_entropy);
      slope.scatter_add_(1, targets, weights * -mix.cross_entropy);
    }
  }
  if (chunk.teacher.defined()) {
    const double cooling = 1 / mix.temperature;
    const at::Tensor s = plain.defined() && cooling == 1 ? plain : (chunk.logits * cooling).log_softmax(1);
    const at::Tensor t = (chunk.teacher * cooling).log_softmax(1), difference = s - t, p = s.exp();
    const at::Tensor reverse = (p * difference).sum(1, true);
    if (losses.forward_kl.defined()) losses.forward_kl.copy_((t.exp() * difference).sum(1).neg_());
    if (losses.reverse_kl.defined()) losses.reverse_kl.copy_(reverse.squeeze(1));
    if (gradient) {
      at::Tensor kl = mix.reverse_kl * p * (difference - reverse);
      if (mix.forward_kl != 0) kl.add_(p - t.exp(), mix.forward_kl);
      kl.mul_(weights * cooling);
      slope = slope.defined() ? slope.add_(kl) : kl;
    }
  }
  return slope;
}

}  // namespace loss_chunk

TokenLosses empty_losses(std::int64_t tokens, const LossMix& mix, bool with_targets, const at::TensorOptions& like) {
  const auto wanted = [&](bool is) { return is ? at::zeros({tokens}, like) : at::Tensor(); };
  return {wanted(with_targets), wanted(mix.forward_kl != 0), wanted(mix.reverse_kl != 0)};
}

at::Tensor chunk_losses(const Chunk& chunk, const LossMix& mix, bool gradient, const TokenLosses& losses) {
  if (!chunk.logits.is_cpu()) return loss_chunk::composed(chunk, mix, gradient, losses);
  for (std::int64_t i = 0; chunk.targets.defined() && i < chunk.targets.numel(); ++i) {
    const std::int64_t target = chunk.targets.const_data_ptr<std::int64_t>()[i];
    MOLT_CHECK(target >= 0 && target < chunk.logits.size(1), "linear_loss: target ", target, " of ", chunk.logits.size(1));
  }
  if (chunk.logits.scalar_type() == at::kFloat)
    loss_chunk::on_cpu<float>(chunk, mix, gradient, losses);
  else
    loss_chunk::on_cpu<double>(chunk, mix, gradient, losses);
  return gradient ? chunk.logits : at::Tensor();
}

}  // namespace molt::ops
