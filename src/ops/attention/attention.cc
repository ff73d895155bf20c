#include "ops/attention/attention.h"

#include <ATen/Functions.h>

#include "base/error.h"
#include "ops/attention/attention_cpu.h"
#include "ops/attention/attention_cuda.h"
#include "ops/autograd.h"

namespace molt::ops {

namespace attention_operation {

// A tensor whose last dimension is adjacent; only an unusual view is copied.
at::Tensor rows_of(const at::Tensor& tensor) {
  return tensor.stride(-1) == 1 || tensor.numel() == 0 ? tensor : tensor.contiguous();
}

template <class T>
HeadRows<const T> read(const at::Tensor& tensor) {
  return {tensor.const_data_ptr<T>(), tensor.stride(0), tensor.stride(1)};
}
template <class T>
HeadRows<T> write(const at::Tensor& tensor) {
  return {tensor.mutable_data_ptr<T>(), tensor.stride(0), tensor.stride(1)};
}

template <class T>
std::vector<QuerySpan<T>> spans_of(const Sequences& sequences, const at::Tensor& k, const at::Tensor& v) {
  std::vector<QuerySpan<T>> spans;
  for (std::int64_t i = 0; i < sequences.count(); ++i) {
    if (sequences.length(i) == 0) continue;
    HeadRows<const T> keys = read<T>(k), values = read<T>(v);
    keys.data += sequences.offsets[i] * keys.token;
    values.data += sequences.offsets[i] * values.token;
    spans.push_back({.first = sequences.offsets[i],
                     .count = sequences.length(i),
                     .context = 0,
                     .keys = {.rows = keys},
                     .values = {.rows = values}});
  }
  return spans;
}

// Saves q, k, v, the result and its log-sum-exp.
template <class T>
at::Tensor forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Sequences& sequences,
                   const AttentionShape& shape, Saved& saved) {
  const at::Tensor queries = rows_of(q), keys = rows_of(k), values = rows_of(v);
  const std::int64_t tokens = q.size(0);
  at::Tensor out = at::empty({tokens, shape.heads, shape.head_size}, q.options());
  const at::Tensor logsumexp = saved.recording ? at::empty({shape.heads, tokens}, q.options()) : at::Tensor();
  attention_forward_cpu(AttentionForward<T>{.shape = shape,
                                            .q = read<T>(queries),
                                            .out = write<T>(out),
                                            .logsumexp = saved.recording ? logsumexp.mutable_data_ptr<T>() : nullptr,
                                            .tokens = tokens,
                                            .spans = spans_of<T>(sequences, keys, values)});
  if (saved.recording) saved.tensors = {queries, keys, values, out, logsumexp};
  return out;
}

template <class T>
Tensors backward(const Tensors& saved, const at::Tensor& gradient, const Sequences& sequences, const AttentionShape& shape) {
  const at::Tensor &q = saved[0], &k = saved[1], &v = saved[2], &out = saved[3];
  const at::Tensor rows = rows_of(gradient);
  const auto like = [](const at::Tensor& tensor) { return at::empty(tensor.sizes(), tensor.options()); };
  Tensors gradients{like(q), like(k), like(v)};
  attention_backward_cpu(AttentionBackward<T>{.shape = shape,
                                              .q = read<T>(q),
                                              .out = read<T>(out),
                                              .gradient = read<T>(rows),
                                              .logsumexp = saved[4].const_data_ptr<T>(),
                                              .tokens = q.size(0),
                                              .spans = spans_of<T>(sequences, k, v),
                                              .dq = write<T>(gradients[0]),
                                              .dk = write<T>(gradients[1]),
                                              .dv = write<T>(gradients[2])});
  return gradients;
}

at::Tensor on_cpu(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Sequences& sequences,
                  const AttentionShape& shape) {
  const bool is_float = q.scalar_type() == at::kFloat;
  return record(
      {q, k, v},
      [&](Saved& saved) -> Tensors {
        return {is_float ? forward<float>(q, k, v, sequences, shape, saved) : forward<double>(q, k, v, sequences, shape, saved)};
      },
      [=](const Tensors& saved, const Tensors& gradients, const std::vector<bool>&) -> Tensors {
        if (!gradients[0].defined()) return Tensors(3);
        return is_float ? backward<float>(saved, gradients[0], sequences, shape)
                        : backward<double>(saved, gradients[0], sequences, shape);
      })[0];
}

}  // namespace attention_operation

at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Sequences& sequences, double scale,
                     std::optional<std::int64_t> window) {
  MOLT_CHECK(q.dim() == 3 && k.dim() == 3 && k.sizes() == v.sizes() && q.size(0) == k.size(0) && q.size(2) == k.size(2) &&
                 k.size(1) > 0 && q.size(1) % k.size(1) == 0 && q.scalar_type() == k.scalar_type() &&
                 q.scalar_type() == v.scalar_type(),
             "attention: q ", q.sizes(), ", k ", k.sizes(), ", v ", v.sizes());
  MOLT_CHECK(sequences.tokens() == q.size(0) && scale > 0 && window.value_or(1) >= 1, "attention: ", sequences.tokens(),
             " tokens in sequences, q ", q.sizes(), ", scale ", scale);
  const at::ScalarType dtype = q.scalar_type();
  if (q.is_cuda() && dtype != at::kDouble) return attention_cuda(q, k, v, sequences, sequences, scale, window);
  if (!q.is_cpu()) return attention_composite(q, k, v, sequences, scale, window);
  const AttentionShape shape{q.size(1), k.size(1), q.size(2), scale, window.value_or(kNoWindow)};
  if (dtype == at::kFloat || dtype == at::kDouble) return attention_operation::on_cpu(q, k, v, sequences, shape);
  return attention_operation::on_cpu(q.to(at::kFloat), k.to(at::kFloat), v.to(at::kFloat), sequences, shape).to(dtype);
}

}  // namespace molt::ops
