// The causal convolution with SiLU on a GPU, each call by itself and in a CUDA graph: 16384 tokens of the 15B hybrid in bfloat16,
// x a part of the layer's projection. Columns to channels: 1024 to 4096 (repeated), 4096 to 4096, 1024 to 1024.
#include "support/cuda_rate.h"
#ifdef MOLT_CUDA
#include <torch/csrc/autograd/autograd.h>

#include "ops/causal_conv/causal_conv.h"

namespace molt::ops {
namespace conv_cuda_bench {

struct Shape {
  const char* name;
  std::vector<std::int32_t> lengths;
  std::int64_t columns, repeat;
};

ConvInput input(const Shape& shape, std::int64_t tokens) {
  const at::TensorOptions wide = at::TensorOptions(at::kCUDA).dtype(at::kFloat);
  const std::int64_t channels = shape.columns * shape.repeat;
  ConvInput in;
  in.x = at::randn({tokens, 8192 + 2 * shape.columns}, wide.dtype(at::kBFloat16)).narrow(1, 4096, shape.columns);
  in.weight = at::randn({channels, 4}, wide);
  in.bias = at::randn({channels}, wide);
  in.repeat = shape.repeat;
  in.group_size = 16;
  return in;
}

void register_shape(const Shape& shape) {
  const Sequences sequences = Sequences::of(shape.lengths, at::kCUDA);
  const std::int64_t tokens = sequences.tokens(), channels = shape.columns * shape.repeat;
  const auto rows = [&](std::int64_t width) { return 2.0 * static_cast<double>(tokens * width); };
  const std::string name = std::string("causal_conv/") + shape.name;
  const auto add = [](const std::string& pass, double bytes, const std::function<std::function<void()>()>& prepare) {
    register_rate(pass, bytes, prepare);
    register_graph_rate(pass, bytes, 10, prepare);
  };
  add(name + "/forward", rows(shape.columns + channels),
      [=] { return [=, in = input(shape, tokens)] { causal_conv(in, sequences); }; });
  add(name + "/backward", rows(2 * shape.columns + channels), [=] {
    ConvInput in = input(shape, tokens);
    for (at::Tensor* field : {&in.x, &in.weight, &in.bias}) field->requires_grad_(true);
    const at::Tensor y = causal_conv(in, sequences), gradient = at::randn_like(y);
    return [=] { torch::autograd::grad({y}, {in.x, in.weight, in.bias}, {gradient}, /*retain_graph=*/true); };
  });
}

const bool registered = on_cuda([] {
  std::vector<std::int32_t> uneven(37, 443);
  for (int i = 0; i < 36; ++i) uneven[i] += (i % 2 == 0 ? 1 : -1) * 11 * (i / 2 + 1);
  uneven[36] += 16384 - 37 * 443;
  register_shape({"1024to4096", {16384}, 1024, 4});
  register_shape({"1024to4096_37_sequences", uneven, 1024, 4});
  register_shape({"4096to4096", {16384}, 4096, 1});
  register_shape({"1024to1024", {16384}, 1024, 1});
});

}  // namespace conv_cuda_bench
}  // namespace molt::ops
#endif
