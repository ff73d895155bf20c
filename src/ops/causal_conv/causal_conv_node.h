// The convolution's two directions by themselves, for operations that have it inside a node of their own.
#pragma once
#include "ops/autograd.h"
#include "ops/causal_conv/causal_conv.h"

namespace molt::ops::conv {

void check(const ConvInput& in, std::int64_t tokens, std::int64_t sequences);
bool has_kernel(const ConvInput& in);

at::Tensor forward(const ConvInput& in, const Sequences& sequences);

// From the gradient of y those of x, weight, bias and initial_window. That of x goes to x_room (of x's shape and dtype, rows any
// stride apart) where it is defined.
Tensors backward(const ConvInput& in, const Sequences& sequences, const at::Tensor& y, const std::vector<bool>& needed,
                 const at::Tensor& x_room);

}  // namespace molt::ops::conv
