// Root mean square normalisation (Zhang and Sennrich 2019): normed = x / sqrt(mean(x^2) + epsilon) * weight, row by row.
#pragma once
#include <ATen/core/Tensor.h>

namespace molt::ops {

// x (rows, hidden), or any shape whose last dimension is hidden; weight (hidden); one dtype for both. The result has x's shape
// and dtype; sums and the root are computed in fp32 (fp64 for fp64). Differentiable in x and weight.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double epsilon);

struct NormedSum {
  at::Tensor normed;  // rms_norm(sum, weight)
  at::Tensor sum;     // x + residual: the residual stream after this branch
};

// The residual form, one pass forward and one backward: in backward the gradient of `sum` and the one through the norm join, and
// the result is the gradient of x and of residual alike. x and residual (rows, hidden).
NormedSum add_rms_norm(const at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight, double epsilon);

// The norm at the head of a branch that x passes by as well: rms_norm(x, weight), and x itself as `sum`, whose gradients join in
// backward as above. x (rows, hidden).
NormedSum branch_rms_norm(const at::Tensor& x, const at::Tensor& weight, double epsilon);

// The formula in plain LibTorch calls: for every device and dtype, and the reference in tests.
at::Tensor rms_norm_composite(const at::Tensor& x, const at::Tensor& weight, double epsilon);

}  // namespace molt::ops
