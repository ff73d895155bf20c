#include "ops/linear_loss/loss_chunk.h"

#include <ATen/Functions.h>
#include <c10/core/DeviceGuard.h>

#include "base/error.h"
#include "ops/linear_loss/linear_loss_cpu.h"
#ifdef MOLT_CUDA
#include <c10/cuda/CUDAStream.h>

#include "ops/linear_loss/linear_loss_cuda.h"
#endif

namespace molt::ops {

namespace loss_chunk {

template <class T>
T* data(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.mutable_data_ptr<T>() : nullptr;
}

void check_targets(const Chunk& chunk) {
  for (std::int64_t i = 0; chunk.targets.defined() && i < chunk.targets.numel(); ++i) {
    const std::int64_t target = chunk.targets.const_data_ptr<std::int64_t>()[i];
    MOLT_CHECK(target >= 0 && target < chunk.logits.size(1), "linear_loss: target ", target, " of ", chunk.logits.size(1));
  }
}

template <class T>
void on_cpu(const Chunk& chunk, const LossMix& mix, const TokenLosses& losses) {
  loss_rows_cpu(LossRows<T>{.rows = chunk.logits.size(0),
                            .vocabulary = chunk.logits.size(1),
                            .logits = data<T>(chunk.logits),
                            .teacher = data<T>(chunk.teacher),
                            .targets = chunk.targets.defined() ? chunk.targets.const_data_ptr<std::int64_t>() : nullptr,
                            .weights = data<T>(chunk.weights),
                            .mix = mix,
                            .gradient = chunk.slope.defined(),
                            .cross_entropy = data<T>(losses.cross_entropy),
                            .forward_kl = data<T>(losses.forward_kl),
                            .reverse_kl = data<T>(losses.reverse_kl),
                            .jsd = data<T>(losses.jsd),
                            .log_sums = data<T>(losses.log_sums)});
}

#ifdef MOLT_CUDA
void on_cuda(const Chunk& chunk, const LossMix& mix, const TokenLosses& losses) {
  const c10::DeviceGuard guard(chunk.logits.device());
  const auto any = [](const at::Tensor& tensor) { return tensor.defined() ? tensor.mutable_data_ptr() : nullptr; };
  loss_rows_cuda({.float64 = chunk.logits.scalar_type() == at::kDouble,
                  .narrow = chunk.slope.defined() && chunk.slope.scalar_type() == at::kBFloat16,
                  .rows = chunk.logits.size(0),
                  .vocabulary = chunk.logits.size(1),
                  .logits = any(chunk.logits),
                  .teacher = any(chunk.teacher),
                  .gradient = any(chunk.slope),
                  .targets = chunk.targets.defined() ? chunk.targets.const_data_ptr<std::int64_t>() : nullptr,
                  .weights = any(chunk.weights),
                  .mix = mix,
                  .cross_entropy = any(losses.cross_entropy),
                  .forward_kl = any(losses.forward_kl),
                  .reverse_kl = any(losses.reverse_kl),
                  .jsd = any(losses.jsd),
                  .log_sums = any(losses.log_sums)},
                 c10::cuda::getCurrentCUDAStream().stream());
}
#endif

}  // namespace loss_chunk

at::ScalarType sum_dtype(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

TokenLosses empty_losses(std::int64_t tokens, const LossMix& mix, bool with_targets, const at::TensorOptions& like) {
  const auto wanted = [&](bool is) { return is ? at::zeros({tokens}, like) : at::Tensor(); };
  return {wanted(with_targets), wanted(mix.forward_kl != 0), wanted(mix.reverse_kl != 0), wanted(mix.jsd != 0),
          wanted(mix.z != 0)};
}

void chunk_losses(const Chunk& chunk, const LossMix& mix, const TokenLosses& losses) {
#ifdef MOLT_CUDA
  if (chunk.logits.is_cuda()) return loss_chunk::on_cuda(chunk, mix, losses);
#endif
  MOLT_CHECK(chunk.logits.is_cpu(), "linear_loss has no kernel for ", chunk.logits.device());
  loss_chunk::check_targets(chunk);
  if (chunk.logits.scalar_type() == at::kFloat)
    loss_chunk::on_cpu<float>(chunk, mix, losses);
  else
    loss_chunk::on_cpu<double>(chunk, mix, losses);
}

}  // namespace molt::ops
