// RMSNorm with residual, rotary, SwiGLU and AdamW on a GPU, beside LibTorch's own calls: shapes of the 15B teacher, bfloat16,
// 16384 tokens; AdamW on 400 M weights.
#include "support/cuda_rate.h"
#ifdef MOLT_CUDA
#include <ATen/TensorOperators.h>
#include <torch/csrc/autograd/autograd.h>

#include "ops/adamw/adamw.h"
#include "ops/rms_norm/rms_norm.h"
#include "ops/rotary/rotary.h"
#include "ops/swiglu/swiglu.h"

namespace molt::ops {
namespace pointwise_cuda_bench {

using Tensors = std::vector<at::Tensor>;
using Operation = std::function<Tensors(const Tensors&)>;
using Inputs = std::function<Tensors()>;

constexpr std::int64_t kTokens = 16384, kHidden = 5120, kIntermediate = 14336, kHeads = 32, kKvHeads = 8, kHeadSize = 128;

at::Tensor random(at::IntArrayRef shape) {
  return at::randn(shape, at::TensorOptions(at::kCUDA).dtype(at::kBFloat16));
}

// Both passes of an operation, without the host's part, as bench/peers/pointwise.py times those of others: `forward_bytes` and
// `backward_bytes` are what each must move.
void register_both(const std::string& name, double forward_bytes, double backward_bytes, const Inputs& inputs,
                   const Operation& operation) {
  constexpr int calls = 4;
  register_graph_rate(name + "/forward", forward_bytes, calls, [=] { return [=, in = inputs()] { operation(in); }; });
  register_graph_rate(name + "/backward", backward_bytes, calls, [=] {
    Tensors in = inputs(), gradients;
    for (at::Tensor& x : in) x.requires_grad_(true);
    const Tensors out = operation(in);
    for (const at::Tensor& y : out) gradients.push_back(random(y.sizes()));
    return [=] { torch::autograd::grad(out, in, gradients, /*retain_graph=*/true); };
  });
}

RotaryTable table() {
  return rotary_table({rotary_frequencies(kHeadSize, 1e6, at::kCUDA), 1}, at::arange(kTokens, at::kCUDA));
}

void register_model_operations() {
  constexpr double hidden = 2.0 * kTokens * kHidden, wide = 2.0 * kTokens * kIntermediate;
  constexpr double qkv = 2.0 * kTokens * (kHeads + 2 * kKvHeads) * kHeadSize, angles = 4.0 * kTokens * kHeadSize;
  const Inputs norm = [] { return Tensors{random({kTokens, kHidden}), random({kHidden})}; };
  const Inputs residual = [] { return Tensors{random({kTokens, kHidden}), random({kTokens, kHidden}), random({kHidden})}; };
  const Inputs gate_up = [] { return Tensors{random({kTokens, 2 * kIntermediate})}; };
  const Inputs heads = [] { return Tensors{random({kTokens, (kHeads + 2 * kKvHeads) * kHeadSize})}; };
  register_both("rms_norm", 2 * hidden, 3 * hidden, norm,
                [](const Tensors& in) { return Tensors{rms_norm(in[0], in[1], 1e-5)}; });
  register_both("rms_norm_libtorch", 2 * hidden, 3 * hidden, norm,
                [](const Tensors& in) { return Tensors{std::get<0>(at::_fused_rms_norm(in[0], {kHidden}, in[1], 1e-5))}; });
  register_both("add_rms_norm", 4 * hidden, 4 * hidden, residual, [](const Tensors& in) {
    const NormedSum out = add_rms_norm(in[0], in[1], in[2], 1e-5);
    return Tensors{out.normed, out.sum};
  });
  register_both("add_rms_norm_libtorch", 4 * hidden, 4 * hidden, residual, [](const Tensors& in) {
    const at::Tensor sum = in[0] + in[1];
    return Tensors{std::get<0>(at::_fused_rms_norm(sum, {kHidden}, in[2], 1e-5)), sum};
  });
  register_both("swiglu", 3 * wide, 5 * wide, gate_up, [](const Tensors& in) { return Tensors{swiglu(in[0])}; });
  register_both("swiglu_libtorch", 3 * wide, 5 * wide, gate_up, [](const Tensors& in) {
    const auto halves = in[0].chunk(2, 1);
    return Tensors{at::silu(halves[0]) * halves[1]};
  });
  register_both("rotary_qkv", 2 * qkv + angles, 2 * qkv + angles, heads, [](const Tensors& in) {
    static const RotaryTable rotary = table();
    const QueryKeyValue out = rotary_qkv(in[0], kHeads, kKvHeads, rotary);
    return Tensors{out.q, out.k, out.v};
  });
  register_both("rotary_qkv_libtorch", 2 * qkv + angles, 2 * qkv + angles, heads, [](const Tensors& in) {
    static const RotaryTable rotary = table();
    const auto parts = in[0].view({kTokens, -1, kHeadSize}).split_with_sizes({kHeads, kKvHeads, kKvHeads}, 1);
    return Tensors{rotary_composite(parts[0], rotary), rotary_composite(parts[1], rotary), parts[2].contiguous()};
  });
}

constexpr std::int64_t kWeights = 400 << 20;

AdamWBuffer flat_buffer() {
  const at::TensorOptions wide = at::TensorOptions(at::kCUDA).dtype(at::kFloat);
  AdamWBuffer buffer;
  buffer.master = at::randn({kWeights}, wide);
  buffer.weights = buffer.master.to(at::kBFloat16);
  buffer.gradients = at::randn({kWeights}, wide);
  buffer.moment1 = at::zeros({kWeights}, wide), buffer.moment2 = at::zeros({kWeights}, wide);
  buffer.ranges = adamw_ranges({{0, kWeights / 2, 0.1, 1.0}, {kWeights / 2, kWeights, 0.0, 1.0}}, at::kCUDA);
  return buffer;
}

// The norm reads gradients; the update reads them, masters and moments, and writes masters, moments and bfloat16 weights.
void register_optimizer() {
  constexpr double bytes = (4 + 4 * 4 + 3 * 4 + 2) * static_cast<double>(kWeights);
  register_rate("adamw_with_norm", bytes, [] {
    return [buffer = flat_buffer()] {
      const AdamWStep step{.learning_rate = 1e-4, .beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8, .step = 1};
      adamw(buffer, step, clip_gradients({buffer.gradients}, 1, 1));
    };
  });
  register_rate("adamw_with_norm_libtorch", bytes, [] {
    return [buffer = flat_buffer(), steps = at::ones({}, at::kCUDA)] {
      const at::Tensor scale = at::linalg_vector_norm(buffer.gradients).clamp_min(1.0),
                       broken = at::isfinite(scale).logical_not();
      at::_fused_adamw_({buffer.master}, {buffer.gradients}, {buffer.moment1}, {buffer.moment2}, {}, {steps}, 1e-4, 0.9, 0.95,
                        0.1, 1e-8, false, false, scale, broken.to(at::kFloat));
      buffer.weights.copy_(buffer.master);
    };
  });
}

const bool registered = on_cuda([] {
  register_model_operations();
  register_optimizer();
});

}  // namespace pointwise_cuda_bench
}  // namespace molt::ops
#endif
