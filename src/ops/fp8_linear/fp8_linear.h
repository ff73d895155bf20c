// Products of frozen weights in eight bits: both operands are e4m3 (4 bits of exponent, 3 of fraction, at most 448) with one
// float32 scale a row, as in Micikevicius et al. 2022 (arXiv 2209.05433); sums are float32.
#pragma once
#include <ATen/core/Tensor.h>

namespace molt::ops {

// Row i of the matrix is values[i] * scales[i].
struct Fp8Rows {
  at::Tensor values;  // (rows, columns) float8_e4m3fn
  at::Tensor scales;  // (rows, 1) float32: the row's largest absolute value / 448, or 1 where that is 0
};

// x (rows, columns), float32 or bfloat16. Each value is rounded to the nearest that its row's scale allows.
Fp8Rows fp8_rows(const at::Tensor& x);

// Whether a device has such products: the CPU, and GPUs from Hopper on.
bool fp8_device(at::Device device);
// Whether fp8_linear takes this weight where it is: rows and columns are multiples of 16.
bool has_fp8_linear(const at::Tensor& weight);

// input (tokens, in) float32 or bfloat16, rounded by rows here, weight (out, in), bias (out) or undefined -> (tokens, out) of
// input's type. On the CPU the values are multiplied in float32. Not differentiable.
at::Tensor fp8_linear(const at::Tensor& input, const Fp8Rows& weight, const at::Tensor& bias = {});

}  // namespace molt::ops
