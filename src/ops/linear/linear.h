// input weight^T + bias, whose gradient by the weight needs no memory of its own where the parameter has a gradient already.
#pragma once
#include <ATen/core/Tensor.h>

namespace molt::ops {

// input (tokens, in), weight (out, in), bias (out) or undefined, of one type -> (tokens, out). Differentiable in all of them.
//
// Where weight is a leaf with a defined grad(), as in a flat buffer, backward multiplies into that and gives autograd nothing for
// it: a product in bf16 is then added up in fp32 without being rounded, and neither a copy of the gradient in bf16 nor one in
// fp32 exists, which autograd's own way writes and reads once more each.
at::Tensor linear(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias = {});

}  // namespace molt::ops
