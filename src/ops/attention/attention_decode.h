// Kernels of generation on a GPU, as attention_cache.cc calls them; null where there is none for the tensors' device and dtype.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "ops/attention/attention.h"

namespace molt::ops {

// Whether attend_one_token and store_qkv_cuda have kernels for these queries or projections.
bool has_decode_kernel(const at::Tensor& values, std::int64_t head_size);

// attention_with_cache for the sequences with exactly one new token; rows of `out` (tokens, heads, head_size) that belong to
// others are left alone. Reads lengths on the device only.
void attend_one_token(const at::Tensor& q, const at::Tensor& k_cache, const at::Tensor& v_cache, const Sequences& fresh,
                      const PagedContext& context, double scale, std::optional<std::int64_t> window, const at::Tensor& out);

// store_qkv in one kernel.
at::Tensor store_qkv_cuda(const at::Tensor& qkv, std::int64_t heads, const RotaryTable& table, const at::Tensor& k_cache,
                          const at::Tensor& v_cache, const at::Tensor& slot_mapping);

}  // namespace molt::ops
