// Products of a few rows with a weight: one token of each of some sequences. What follows a product is done where its sums are: a
// residual added, the gated activation applied. On a GPU nothing but reading the weight counts; on the CPU a small model's
// products take less time than LibTorch's calls around them, and a large one's weight is read once, unpacked.
#pragma once
#include <ATen/core/Tensor.h>

namespace molt::ops {

// Whether there is a kernel for x (rows, in) and weight (out, in), both contiguous: bf16 on a GPU, at most 8 rows, in a multiple
// of 32 and out one of 16, no gradients being recorded; float32 on the CPU, 4 to 32 rows, in inference mode.
bool has_skinny_kernel(const at::Tensor& x, const at::Tensor& weight);

// x weight^T + bias + residual, (rows, out). bias (out) and residual (rows, out) are optional. Sums are fp32. No gradients.
at::Tensor skinny_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias = {},
                         const at::Tensor& residual = {});

// swiglu (its header has the formula) of x weight^T, weight (2 * intermediate, in) with gate above up: (rows, intermediate). The
// two halves are not rounded in between.
at::Tensor skinny_swiglu(const at::Tensor& x, const at::Tensor& weight);

}  // namespace molt::ops
