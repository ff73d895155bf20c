// Rows of an embedding for tokens of a step.
#pragma once
#include <ATen/core/Tensor.h>

namespace molt::ops {

// at::embedding(weight, tokens) where no gradients are wanted: (tokens, hidden) of weight (vocabulary, hidden) for int64 tokens
// (tokens). Rows of contiguous tensors on the CPU are copied without LibTorch's dispatcher, which would be called three times.
at::Tensor embedding_rows(const at::Tensor& weight, const at::Tensor& tokens);

}  // namespace molt::ops
