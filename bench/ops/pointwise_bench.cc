// RMSNorm with residual, rotary and SwiGLU beside their composite forms in LibTorch's calls, forward and forward + backward.
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <benchmark/benchmark.h>
#include <torch/csrc/autograd/autograd.h>

#include "ops/rms_norm/rms_norm.h"
#include "ops/rotary/rotary.h"
#include "ops/swiglu/swiglu.h"

namespace molt::ops {
namespace pointwise_bench {

using Tensors = std::vector<at::Tensor>;
using Operation = Tensors (*)(const Tensors&);

Tensors norm_molt(const Tensors& in) {
  const NormedSum out = add_rms_norm(in[0], in[1], in[2], 1e-5);
  return {out.normed, out.sum};
}
Tensors norm_libtorch(const Tensors& in) {
  const at::Tensor sum = in[0] + in[1];
  return {rms_norm_composite(sum, in[2], 1e-5), sum};
}
Tensors swiglu_molt(const Tensors& in) {
  return {swiglu(in[0])};
}
Tensors swiglu_libtorch(const Tensors& in) {
  return {swiglu_composite(in[0])};
}

const RotaryTable& table() {
  static const RotaryTable table = rotary_table({rotary_frequencies(64, 10000), 1}, at::arange(2048));
  return table;
}
Tensors rotary_molt(const Tensors& in) {
  const QueryKeyValue out = rotary_qkv(in[0], 12, 4, table());
  return {out.q, out.k, out.v};
}
Tensors rotary_libtorch(const Tensors& in) {
  const auto parts = in[0].view({2048, 20, 64}).split_with_sizes({12, 4, 4}, 1);
  return {rotary_composite(parts[0], table()), rotary_composite(parts[1], table()), parts[2].contiguous()};
}

// 2048 tokens of a model with hidden 768, 12/4 heads of 64 and an MLP of 2048.
Tensors inputs(Operation operation) {
  at::manual_seed(1);
  if (operation == norm_molt || operation == norm_libtorch)
    return {at::randn({2048, 768}), at::randn({2048, 768}), at::randn({768})};
  if (operation == swiglu_molt || operation == swiglu_libtorch) return {at::randn({2048, 4096})};
  return {at::randn({2048, 20 * 64})};
}

void forward(benchmark::State& run, Operation operation) {
  const Tensors in = inputs(operation);
  for (auto unused : run) benchmark::DoNotOptimize(operation(in));
}

void forward_backward(benchmark::State& run, Operation operation) {
  const Tensors in = inputs(operation);
  for (const at::Tensor& x : in) x.requires_grad_(true);
  Tensors gradients;
  for (const at::Tensor& out : operation(in)) gradients.push_back(at::randn(out.sizes()));
  for (auto unused : run) {
    for (const at::Tensor& x : in) x.mutable_grad() = at::Tensor();
    torch::autograd::backward(operation(in), gradients);
  }
}

#define MOLT_PAIR(operation)                                                                                             \
  BENCHMARK_CAPTURE(forward, operation##_molt, operation##_molt)->Unit(benchmark::kMicrosecond)->UseRealTime();          \
  BENCHMARK_CAPTURE(forward, operation##_libtorch, operation##_libtorch)->Unit(benchmark::kMicrosecond)->UseRealTime();  \
  BENCHMARK_CAPTURE(forward_backward, operation##_molt, operation##_molt)->Unit(benchmark::kMicrosecond)->UseRealTime(); \
  BENCHMARK_CAPTURE(forward_backward, operation##_libtorch, operation##_libtorch)->Unit(benchmark::kMicrosecond)->UseRealTime()

MOLT_PAIR(norm);
MOLT_PAIR(swiglu);
MOLT_PAIR(rotary);

}  // namespace pointwise_bench
}  // namespace molt::ops
