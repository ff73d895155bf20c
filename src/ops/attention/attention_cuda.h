// Attention on the GPU: cuDNN's for bf16 and fp16 (attention_cudnn.h), LibTorch's packed flash attention where cuDNN has none,
// its packed memory-efficient attention for fp32.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "ops/sequences.h"

namespace molt::ops {

// Query i of a sequence stands at position keys - queries + i of the same sequence's keys. Differentiable in q, k and v where
// every sequence has as many keys as queries: LibTorch's fp32 backward with a window is wrong elsewhere.
at::Tensor attention_cuda(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Sequences& queries,
                          const Sequences& keys, double scale, std::optional<std::int64_t> window);

}  // namespace molt::ops
