// Attention by cuDNN's fused kernels, on packs: on Hopper about twice as fast as LibTorch's packed flash attention.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "ops/sequences.h"

namespace molt::ops {

// As attention_cuda (attention_cuda.h), bf16 or fp16; nothing where cuDNN is missing or has no kernel for the case, or where a
// gradient is wanted and LibTorch is set to deterministic algorithms: cuDNN's backward adds up dq in any order, and its
// deterministic form keeps every score.
//
// A plan is made once for upper bounds of the number of sequences, of their lengths and of the tokens (powers of two, tokens in
// steps of at most a quarter), and kept: packs of changing lengths share it. Packs that meet their bounds exactly, such as 4
// sequences of 4096 tokens, have plans of their own.
std::optional<at::Tensor> attention_cudnn(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Sequences& queries,
                                          const Sequences& keys, double scale, std::optional<std::int64_t> window);

}  // namespace molt::ops
