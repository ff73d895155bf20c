#include "ops/attention/attention_decode.h"

#include <ATen/Functions.h>
#include <c10/core/DeviceGuard.h>

#include "base/error.h"
#include "ops/attention/attention_decode_kernels.h"
#ifdef MOLT_CUDA
#include <c10/cuda/CUDAStream.h>
#endif

namespace molt::ops {

#ifdef MOLT_CUDA

bool has_decode_kernel(const at::Tensor& values, std::int64_t head_size) {
  const auto dtype = values.scalar_type();
  return values.is_cuda() && (dtype == at::kFloat || dtype == at::kBFloat16) && head_size <= kLargestDecodeHead;
}

void attend_one_token(const at::Tensor& q, const at::Tensor& k_cache, const at::Tensor& v_cache, const Sequences& fresh,
                      const PagedContext& context, double scale, std::optional<std::int64_t> window, const at::Tensor& out) {
  const c10::DeviceGuard guard(q.device());
  const at::Tensor queries = q.stride(2) == 1 ? q : q.contiguous();
  decode::Arguments a{.bfloat16 = q.scalar_type() == at::kBFloat16,
                      .sequences = fresh.count(),
                      .heads = q.size(1),
                      .kv_heads = k_cache.size(2),
                      .head_size = q.size(2),
                      .block_size = k_cache.size(1),
                      .max_blocks = context.block_table.size(1),
                      .q = queries.const_data_ptr(),
                      .q_token = queries.stride(0),
                      .q_head = queries.stride(1),
                      .k_cache = k_cache.const_data_ptr(),
                      .v_cache = v_cache.const_data_ptr(),
                      .block_table = context.block_table.const_data_ptr<std::int32_t>(),
                      .contexts = context.context_lens.const_data_ptr<std::int32_t>(),
                      .offsets = fresh.cu_seqlens.const_data_ptr<std::int32_t>(),
                      .scale = static_cast<float>(scale),
                      .window = window.value_or(0),
                      .out = out.mutable_data_ptr()};
  // By what the blocks hold, not by the lengths of the moment: a step that is captured once is replayed at any length.
  const std::int64_t room = a.block_size * a.max_blocks;
  a.splits = decode::splits_for(a, window ? std::min(*window, room) : room);
  const at::Tensor partial = at::empty({decode::partial_size(a)}, q.options().dtype(at::kFloat));
  a.partial = partial.mutable_data_ptr<float>();
  decode::cuda_attend(a, c10::cuda::getCurrentCUDAStream().stream());
}

at::Tensor store_qkv_cuda(const at::Tensor& qkv, std::int64_t heads, const RotaryTable& table, const at::Tensor& k_cache,
                          const at::Tensor& v_cache, const at::Tensor& slot_mapping) {
  const c10::DeviceGuard guard(qkv.device());
  const at::Tensor rows = qkv.stride(1) == 1 ? qkv : qkv.contiguous(), slots = slot_mapping.contiguous();
  const std::int64_t size = k_cache.size(3);
  const bool turns = table.cos.defined();
  const at::Tensor q = at::empty({qkv.size(0), heads, size}, qkv.options());
  decode::cuda_store({.bfloat16 = qkv.scalar_type() == at::kBFloat16,
                      .tokens = qkv.size(0),
                      .heads = heads,
                      .kv_heads = k_cache.size(2),
                      .head_size = size,
                      .half = turns ? table.cos.size(1) : 0,
                      .qkv = rows.const_data_ptr(),
                      .stride = rows.stride(0),
                      .cos = turns ? table.cos.const_data_ptr<float>() : nullptr,
                      .sin = turns ? table.sin.const_data_ptr<float>() : nullptr,
                      .slots = slots.const_data_ptr<std::int64_t>(),
                      .q = q.mutable_data_ptr(),
                      .k_cache = k_cache.mutable_data_ptr(),
                      .v_cache = v_cache.mutable_data_ptr()},
                     c10::cuda::getCurrentCUDAStream().stream());
  return q;
}

#else

bool has_decode_kernel(const at::Tensor&, std::int64_t) {
  return false;
}

void attend_one_token(const at::Tensor&, const at::Tensor&, const at::Tensor&, const Sequences&, const PagedContext&, double,
                      std::optional<std::int64_t>, const at::Tensor&) {
  MOLT_CHECK(false, "a build without CUDA");
}

at::Tensor store_qkv_cuda(const at::Tensor&, std::int64_t, const RotaryTable&, const at::Tensor&, const at::Tensor&,
                          const at::Tensor&) {
  MOLT_CHECK(false, "a build without CUDA");
}

#endif

}  // namespace molt::ops
