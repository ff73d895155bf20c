// input weight^T + bias, whose gradient by the weight needs no memory of its own where the parameter has a gradient already; and
// the same with low-rank updates of the weight.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace molt::ops {

// A low-rank update (LoRA, arXiv 2106.09685) of the rows [first, first + rows) of a weight: they act as
// weight + scale * up down.
struct LowRankUpdate {
  at::Tensor down;  // (rank, in)
  at::Tensor up;    // (rows, rank)
  double scale = 1;
  std::int64_t first = 0;
};

// input (tokens, in), weight (out, in), bias (out) or undefined, updates, of one type -> (tokens, out). Differentiable in all of
// them. The sum of weight and updates is never formed: an update costs products of its rank alone, forward and backward, and
// keeps (tokens, rank) for backward.
//
// Where weight (or an update's factor) is a leaf with a defined grad(), as in a flat buffer, backward multiplies into that and
// gives autograd nothing for it: a product in bf16 is then added up in fp32 without being rounded, and neither a copy of the
// gradient in bf16 nor one in fp32 exists, which autograd's own way writes and reads once more each.
at::Tensor linear(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias = {},
                  const std::vector<LowRankUpdate>& updates = {});

}  // namespace molt::ops
