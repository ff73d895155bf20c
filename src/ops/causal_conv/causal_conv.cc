#include "ops/causal_conv/causal_conv.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

namespace molt::ops {

at::Tensor causal_conv(const ConvInput& input, const Sequences& sequences) {
  return causal_conv_composite(input, sequences);
}

at::Tensor causal_conv_update(const ConvInput& input, const at::Tensor& cache, const at::Tensor& slots) {
  ConvInput one = input;
  one.initial_window = cache.index_select(0, slots);
  const Sequences each = Sequences::of(std::vector<std::int32_t>(static_cast<std::size_t>(input.x.size(0)), 1), input.x.device());
  const at::Tensor y = causal_conv_composite(one, each);
  at::Tensor updated = cache;
  updated.index_copy_(0, slots.to(at::kLong), causal_conv_final_windows(one, each));
  return y;
}

}  // namespace molt::ops
