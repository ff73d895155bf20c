#include "ops/attention/attention_cuda.h"

#include <ATen/Functions.h>

#include <tuple>

#ifdef MOLT_CUDNN
#include "ops/attention/attention_cudnn.h"
#endif
#include "ops/autograd.h"

namespace molt::ops {

namespace attention_by_torch {

constexpr std::int64_t kCausalFromBottomRight = 2;  // _efficient_attention_forward's custom_mask_type

at::Tensor flash(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Sequences& queries, const Sequences& keys,
                 double scale, std::optional<std::int64_t> window) {
  const auto left = window ? std::optional<std::int64_t>(*window - 1) : std::nullopt;
  const auto right = window ? std::optional<std::int64_t>(0) : std::nullopt;
  return record(
      {q, k, v},
      [&](Saved& saved) -> Tensors {
        auto [out, logsumexp, random, unused, debug] =
            at::_flash_attention_forward(q, k, v, queries.cu_seqlens, keys.cu_seqlens, queries.max_length, keys.max_length, 0.0,
                                         true, false, std::optional<double>(scale), left, right);
        saved.tensors = {q, k, v, out, logsumexp, queries.cu_seqlens, keys.cu_seqlens, random, unused};
        return {out};
      },
      [=, longest_query = queries.max_length, longest_key = keys.max_length](const Tensors& saved, const Tensors& gradients,
                                                                             const std::vector<bool>&) -> Tensors {
        if (!gradients[0].defined()) return Tensors(3);
        auto [dq, dk, dv] = at::_flash_attention_backward(gradients[0].contiguous(), saved[0], saved[1], saved[2], saved[3],
                                                          saved[4], saved[5], saved[6], longest_query, longest_key, 0.0, true,
                                                          saved[7], saved[8], std::optional<double>(scale), left, right);
        return {dq, dk, dv};
      })[0];
}

// q, k and v with the same number of heads.
at::Tensor efficient(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Sequences& queries,
                     const Sequences& keys, double scale, std::optional<std::int64_t> window) {
  return record(
      {q, k, v},
      [&](Saved& saved) -> Tensors {
        auto [out, logsumexp, seed, offset, longest_query, longest_key] = at::_efficient_attention_forward(
            q.unsqueeze(0), k.unsqueeze(0), v.unsqueeze(0), std::nullopt, queries.cu_seqlens, keys.cu_seqlens, queries.max_length,
            keys.max_length, 0.0, kCausalFromBottomRight, saved.recording, std::optional<double>(scale), std::nullopt, window);
        saved.tensors = {q, k, v, out, logsumexp, queries.cu_seqlens, keys.cu_seqlens, seed, offset};
        return {out.squeeze(0)};
      },
      [=, longest_query = queries.max_length, longest_key = keys.max_length](const Tensors& saved, const Tensors& gradients,
                                                                             const std::vector<bool>&) -> Tensors {
        if (!gradients[0].defined()) return Tensors(3);
        auto [dq, dk, dv, bias] = at::_efficient_attention_backward(
            gradients[0].contiguous().unsqueeze(0), saved[0].unsqueeze(0), saved[1].unsqueeze(0), saved[2].unsqueeze(0),
            std::nullopt, saved[3], saved[5], saved[6], longest_query, longest_key, saved[4], 0.0, saved[7], saved[8],
            kCausalFromBottomRight, false, std::optional<double>(scale), std::nullopt, window);
        return {dq.squeeze(0), dk.squeeze(0), dv.squeeze(0)};
      })[0];
}

// All kernels want heads of whole vectors of 8.
at::Tensor padded_heads(const at::Tensor& tensor) {
  const std::int64_t beyond = tensor.size(2) % 8;
  return beyond == 0 ? tensor : at::constant_pad_nd(tensor, {0, 8 - beyond}, 0);
}

at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Sequences& queries, const Sequences& keys,
                  double scale, std::optional<std::int64_t> window) {
  if (q.scalar_type() == at::kFloat) {
    const std::int64_t group = q.size(1) / k.size(1);
    const auto expand = [group](const at::Tensor& tensor) { return group == 1 ? tensor : tensor.repeat_interleave(group, 1); };
    return efficient(q, expand(k), expand(v), queries, keys, scale, window);
  }
#ifdef MOLT_CUDNN
  if (const auto out = attention_cudnn(q, k, v, queries, keys, scale, window)) return *out;
#endif
  return flash(q, k, v, queries, keys, scale, window);
}

}  // namespace attention_by_torch

at::Tensor attention_cuda(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Sequences& queries,
                          const Sequences& keys, double scale, std::optional<std::int64_t> window) {
  using namespace attention_by_torch;
  if (q.numel() == 0) return q.mul(0);
  const at::Tensor wide_q = padded_heads(q), wide_k = padded_heads(k), wide_v = padded_heads(v);
  const at::Tensor out = attend(wide_q, wide_k, wide_v, queries, keys, scale, window);
  return out.size(2) == q.size(2) ? out : out.narrow(2, 0, q.size(2)).contiguous();
}

}  // namespace molt::ops
