// The convolution's two directions by themselves, for operations that have it inside a node of their own.
#pragma once
#include "ops/autograd.h"
#include "ops/causal_conv/causal_conv.h"
#include "ops/shared_sums.h"

namespace molt::ops::conv {

void check(const ConvInput& in, std::int64_t tokens, std::int64_t sequences);
bool has_kernel(const ConvInput& in);

// Whether the kernels read weight and bias as they are, and not converted to the dtype that sums have.
bool has_narrow_weight(const ConvInput& in);

at::Tensor forward(const ConvInput& in, const Sequences& sequences);

// From the gradient of y those of x, weight, bias and initial_window. That of x goes to x_room (of x's shape and dtype, rows any
// stride apart) where it is defined; those of weight and bias are there once `sums` are finished.
Tensors backward(const ConvInput& in, const Sequences& sequences, const at::Tensor& y, const std::vector<bool>& needed,
                 const at::Tensor& x_room, SharedSums& sums);

}  // namespace molt::ops::conv
