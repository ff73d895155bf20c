#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <c10/core/GradMode.h>

#include <algorithm>

#include "base/error.h"
#include "ops/attention/attention.h"
#include "ops/attention/attention_cpu.h"
#include "ops/attention/attention_cuda.h"
#include "ops/attention/attention_decode.h"
#include "ops/attention/store_qkv_cpu.h"
#include "ops/lanes.h"
#include "ops/new_tensor.h"

namespace molt::ops {

namespace attention_cache {

// Dtypes with kernels on the CPU have their caches in tiles there.
bool in_tiles(const at::Tensor& cache) {
  return cache.is_cpu() && (cache.scalar_type() == at::kFloat || cache.scalar_type() == at::kDouble);
}

// Up to this many new tokens of a sequence are attended one by one, reading the cache in place; more are worth packing its keys
// for.
constexpr std::int64_t kFewQueries = 4;

template <class T>
at::Tensor on_cpu(const at::Tensor& q, const at::Tensor& k_cache, const at::Tensor& v_cache, const Sequences& fresh,
                  const PagedContext& context, double scale, std::optional<std::int64_t> window) {
  const at::Tensor queries = q.stride(2) == 1 ? q : q.contiguous();
  at::Tensor out = new_tensor({q.size(0), q.size(1), q.size(2)}, q);
  const auto cache_rows = [](const at::Tensor& cache) -> HeadRows<const T> {
    return {cache.const_data_ptr<T>(), cache.stride(1), cache.stride(2)};
  };
  AttentionForward<T> many{.shape = {q.size(1), k_cache.size(2), q.size(2), scale, window.value_or(kNoWindow)},
                           .q = {queries.const_data_ptr<T>(), queries.stride(0), queries.stride(1)},
                           .out = {out.mutable_data_ptr<T>(), out.stride(0), out.stride(1)},
                           .logsumexp = nullptr,
                           .tokens = q.size(0),
                           .spans = {}};
  AttentionForward<T> few = many;
  few.spans.reserve(static_cast<std::size_t>(fresh.count()));
  for (std::int64_t i = 0; i < fresh.count(); ++i) {
    if (fresh.length(i) == 0) continue;
    const std::int32_t* blocks = context.block_table.const_data_ptr<std::int32_t>() + i * context.block_table.size(1);
    const bool in_place = fresh.length(i) <= kFewQueries && q.size(2) >= 8;
    (in_place ? few : many)
        .spans.push_back({.first = fresh.offsets[i],
                          .count = fresh.length(i),
                          .context = context.lens[i],
                          .keys = {cache_rows(k_cache), blocks, k_cache.size(1)},
                          .values = {cache_rows(v_cache), blocks, v_cache.size(1)}});
  }
  attention_decode_cpu(few);
  attention_forward_cpu(many);
  return out;
}

// Every sequence's keys or values, new ones included, laid end to end.
struct Gathered {
  at::Tensor k, v;
  Sequences sequences;
};

Gathered gather(const at::Tensor& k_cache, const at::Tensor& v_cache, const Sequences& fresh, const PagedContext& context) {
  const std::int64_t block_size = k_cache.size(1);
  std::vector<std::int32_t> lengths;
  for (std::int64_t i = 0; i < fresh.count(); ++i)
    lengths.push_back(fresh.length(i) == 0 ? 0 : context.lens[i] + static_cast<std::int32_t>(fresh.length(i)));
  const at::Device device = k_cache.device();
  const Sequences all = Sequences::of(lengths, device);
  const at::TensorOptions options = at::TensorOptions(device).dtype(at::kLong);
  const at::Tensor counts = all.cu_seqlens.slice(0, 1).sub(all.cu_seqlens.slice(0, 0, -1));
  const at::Tensor sequence = at::repeat_interleave(at::arange(fresh.count(), options), counts, std::nullopt, all.tokens());
  const at::Tensor position = at::arange(all.tokens(), options) - all.cu_seqlens.to(at::kLong).index_select(0, sequence);
  const at::Tensor block = context.block_table.index({sequence, at::div(position, block_size, "floor")}).to(at::kLong);
  const at::Tensor slot = block * block_size + at::remainder(position, block_size);
  const auto rows = [&slot](const at::Tensor& cache) { return cache_rows(cache).index_select(0, slot); };
  return {rows(k_cache), rows(v_cache), all};
}

// The sequences of `all` at these places, with their rows laid end to end.
struct Some {
  Sequences fresh;
  std::vector<std::int32_t> lens;
  at::Tensor rows, block_table;  // rows: of the whole pack
};

Some pick(const std::vector<std::int64_t>& places, const Sequences& fresh, const PagedContext& context) {
  const at::Device device = context.block_table.device();
  std::vector<std::int32_t> lengths;
  std::vector<std::int64_t> rows;
  Some some;
  for (const std::int64_t i : places) {
    lengths.push_back(static_cast<std::int32_t>(fresh.length(i)));
    some.lens.push_back(context.lens[i]);
    for (std::int64_t row = fresh.offsets[i]; row < fresh.offsets[i + 1]; ++row) rows.push_back(row);
  }
  some.fresh = Sequences::of(lengths, device);
  some.rows = at::tensor(rows, at::kLong).to(device);
  some.block_table = context.block_table.index_select(0, at::tensor(places, at::kLong).to(device));
  return some;
}

// Sequences with one new token by a kernel that reads the cache in place, the others' keys gathered for LibTorch's.
at::Tensor on_cuda(const at::Tensor& q, const at::Tensor& k_cache, const at::Tensor& v_cache, const Sequences& fresh,
                   const PagedContext& context, double scale, std::optional<std::int64_t> window) {
  std::vector<std::int64_t> longer;
  std::int64_t single = 0;
  for (std::int64_t i = 0; i < fresh.count(); ++i) {
    if (fresh.length(i) > 1) longer.push_back(i);
    if (fresh.length(i) == 1) ++single;
  }
  const bool in_place = single > 0 && has_decode_kernel(q, q.size(2));
  if (!in_place) {
    const Gathered all = gather(k_cache, v_cache, fresh, context);
    return attention_cuda(q, all.k, all.v, fresh, all.sequences, scale, window);
  }
  const at::Tensor out = at::empty({q.size(0), q.size(1), q.size(2)}, q.options());
  attend_one_token(q, k_cache, v_cache, fresh, context, scale, window, out);
  if (longer.empty()) return out;
  const Some some = pick(longer, fresh, context);
  const Gathered all = gather(k_cache, v_cache, some.fresh, {context.context_lens, some.lens, some.block_table});
  out.index_copy_(0, some.rows,
                  attention_cuda(q.index_select(0, some.rows), all.k, all.v, some.fresh, all.sequences, scale, window));
  return out;
}

void check(const at::Tensor& q, const at::Tensor& k_cache, const at::Tensor& v_cache, const Sequences& fresh,
           const PagedContext& context) {
  MOLT_CHECK(q.dim() == 3 && k_cache.dim() == 4 && k_cache.sizes() == v_cache.sizes() && k_cache.is_contiguous() &&
                 v_cache.is_contiguous() && q.size(2) == k_cache.size(3) && q.size(1) % k_cache.size(2) == 0 &&
                 q.scalar_type() == k_cache.scalar_type() && q.scalar_type() == v_cache.scalar_type(),
             "attention_with_cache: q ", q.sizes(), ", k_cache ", k_cache.sizes(), ", v_cache ", v_cache.sizes());
  MOLT_CHECK(!in_tiles(k_cache) || k_cache.size(1) % kTile == 0, "attention_with_cache: blocks of ", k_cache.size(1),
             " positions, expected a multiple of ", kTile);
  MOLT_CHECK(fresh.tokens() == q.size(0) && static_cast<std::int64_t>(context.lens.size()) == fresh.count() &&
                 context.block_table.dim() == 2 && context.block_table.size(0) == fresh.count() &&
                 context.block_table.scalar_type() == at::kInt && context.block_table.is_contiguous(),
             "attention_with_cache: ", fresh.count(), " sequences, ", context.lens.size(), " contexts, block_table ",
             context.block_table.sizes());
  for (std::int64_t i = 0; i < fresh.count(); ++i)
    MOLT_CHECK(fresh.length(i) == 0 || context.lens[i] + fresh.length(i) <= context.block_table.size(1) * k_cache.size(1),
               "attention_with_cache: sequence ", i, " has ", context.lens[i], " + ", fresh.length(i),
               " tokens, its blocks hold ", context.block_table.size(1) * k_cache.size(1));
}

void check_slots(const at::Tensor& slots, const at::Tensor& cache) {
  const std::int64_t capacity = cache.size(0) * cache.size(1);
  MOLT_CHECK(cache.size(1) % kTile == 0, "store_kv: blocks of ", cache.size(1), " positions, expected a multiple of ", kTile);
  const auto* slot = slots.const_data_ptr<std::int64_t>();
  for (std::int64_t t = 0; t < slots.numel(); ++t)
    MOLT_CHECK(slot[t] >= 0 && slot[t] < capacity, "store_kv: slot ", slot[t], " of ", capacity);
}

template <class T>
void store_in_tiles(const at::Tensor& from, const at::Tensor& cache, const at::Tensor& slots) {
  const std::int64_t row = from.size(1) * from.size(2);
  const auto* slot = slots.const_data_ptr<std::int64_t>();
  const T* source = from.const_data_ptr<T>();
  T* target = cache.mutable_data_ptr<T>();
  at::parallel_for(0, from.size(0), std::max<std::int64_t>(1, 16384 / row), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      T* to = target + slot[t] / kTile * kTile * row + slot[t] % kTile;
      for (std::int64_t i = 0; i < row; ++i) to[i * kTile] = source[t * row + i];
    }
  });
}

template <class T>
at::Tensor store_qkv_in_tiles(const at::Tensor& qkv, std::int64_t heads, const RotaryTable& table, const at::Tensor& k_cache,
                              const at::Tensor& v_cache, const at::Tensor& slot_mapping) {
  const at::Tensor rows = qkv.stride(1) == 1 ? qkv : qkv.contiguous(), slots = slot_mapping.contiguous();
  check_slots(slots, k_cache);
  const std::int64_t size = k_cache.size(3);
  const bool turns = table.cos.defined();
  at::Tensor q = new_tensor({qkv.size(0), heads, size}, qkv);
  store_qkv_cpu(StoreQkv<T>{.tokens = qkv.size(0),
                            .heads = heads,
                            .kv_heads = k_cache.size(2),
                            .head_size = size,
                            .qkv = rows.const_data_ptr<T>(),
                            .stride = rows.stride(0),
                            .cos = turns ? table.cos.const_data_ptr<float>() : nullptr,
                            .sin = turns ? table.sin.const_data_ptr<float>() : nullptr,
                            .half = turns ? table.cos.size(1) : 0,
                            .slots = slots.const_data_ptr<std::int64_t>(),
                            .q = q.mutable_data_ptr<T>(),
                            .k_cache = k_cache.mutable_data_ptr<T>(),
                            .v_cache = v_cache.mutable_data_ptr<T>()});
  return q;
}

}  // namespace attention_cache

at::Tensor attention_with_cache(const at::Tensor& q, const at::Tensor& k_cache, const at::Tensor& v_cache, const Sequences& fresh,
                                const PagedContext& context, double scale, std::optional<std::int64_t> window) {
  c10::AutoGradMode no_recording(false);
  attention_cache::check(q, k_cache, v_cache, fresh, context);
  if (q.is_cpu() && q.scalar_type() == at::kFloat)
    return attention_cache::on_cpu<float>(q, k_cache, v_cache, fresh, context, scale, window);
  if (q.is_cpu() && q.scalar_type() == at::kDouble)
    return attention_cache::on_cpu<double>(q, k_cache, v_cache, fresh, context, scale, window);
  if (q.is_cuda() && q.scalar_type() != at::kDouble)
    return attention_cache::on_cuda(q, k_cache, v_cache, fresh, context, scale, window);
  return attention_with_cache_composite(q, k_cache, v_cache, fresh, context, scale, window);
}

void store_kv(const at::Tensor& k, const at::Tensor& v, const at::Tensor& k_cache, const at::Tensor& v_cache,
              const at::Tensor& slot_mapping) {
  c10::AutoGradMode no_recording(false);
  MOLT_CHECK(k.dim() == 3 && k.sizes() == v.sizes() && k_cache.dim() == 4 && k.size(1) == k_cache.size(2) &&
                 k.size(2) == k_cache.size(3) && k_cache.sizes() == v_cache.sizes() && k.scalar_type() == k_cache.scalar_type() &&
                 v.scalar_type() == v_cache.scalar_type() && slot_mapping.numel() == k.size(0) && k_cache.is_contiguous() &&
                 v_cache.is_contiguous() && slot_mapping.scalar_type() == at::kLong,
             "store_kv: k ", k.sizes(), ", v ", v.sizes(), ", caches ", k_cache.sizes(), ", slots ", slot_mapping.sizes());
  if (!attention_cache::in_tiles(k_cache)) {
    k_cache.flatten(0, 1).index_copy_(0, slot_mapping, k);
    v_cache.flatten(0, 1).index_copy_(0, slot_mapping, v);
    return;
  }
  const bool is_double = k.scalar_type() == at::kDouble;
  const auto store = is_double ? attention_cache::store_in_tiles<double> : attention_cache::store_in_tiles<float>;
  const at::Tensor slots = slot_mapping.contiguous();
  attention_cache::check_slots(slots, k_cache);
  store(k.contiguous(), k_cache, slots);
  store(v.contiguous(), v_cache, slots);
}

at::Tensor cache_rows(const at::Tensor& cache) {
  if (!attention_cache::in_tiles(cache)) return cache.flatten(0, 1);
  const std::int64_t rows = cache.size(0) * cache.size(1), heads = cache.size(2), size = cache.size(3);
  return cache.view({rows / kTile, heads, size, kTile}).permute({0, 3, 1, 2}).reshape({rows, heads, size});
}

at::Tensor store_qkv(const at::Tensor& qkv, std::int64_t heads, const RotaryTable& table, const at::Tensor& k_cache,
                     const at::Tensor& v_cache, const at::Tensor& slot_mapping) {
  c10::AutoGradMode no_recording(false);
  const std::int64_t kv_heads = k_cache.size(2), size = k_cache.size(3);
  MOLT_CHECK(qkv.dim() == 2 && qkv.size(1) == (heads + 2 * kv_heads) * size && qkv.scalar_type() == k_cache.scalar_type() &&
                 k_cache.sizes() == v_cache.sizes() && k_cache.is_contiguous() && v_cache.is_contiguous() &&
                 slot_mapping.scalar_type() == at::kLong && slot_mapping.numel() == qkv.size(0) &&
                 (!table.cos.defined() || (table.cos.size(0) == qkv.size(0) && 2 * table.cos.size(1) <= size)),
             "store_qkv: qkv ", qkv.sizes(), ", ", heads, " heads, caches ", k_cache.sizes(), ", slots ", slot_mapping.sizes());
  if (has_decode_kernel(qkv, size)) return store_qkv_cuda(qkv, heads, table, k_cache, v_cache, slot_mapping);
  if (attention_cache::in_tiles(k_cache)) {
    const bool is_double = qkv.scalar_type() == at::kDouble;
    const auto store = is_double ? attention_cache::store_qkv_in_tiles<double> : attention_cache::store_qkv_in_tiles<float>;
    return store(qkv, heads, table, k_cache, v_cache, slot_mapping);
  }
  const auto [q, k, v] = rotary_qkv(qkv, heads, kv_heads, table);
  store_kv(k, v, k_cache, v_cache, slot_mapping);
  return q;
}

namespace attention_reference {

// One sequence: q (queries, heads, head_size) at the last positions of k and v (keys, kv_heads, head_size).
at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale,
                  std::optional<std::int64_t> window) {
  const std::int64_t queries = q.size(0), keys = k.size(0), group = q.size(1) / k.size(1);
  const at::ScalarType dtype = q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const auto heads_first = [&](const at::Tensor& x, std::int64_t times) {
    return x.to(dtype).repeat_interleave(times, 1).transpose(0, 1);
  };
  const at::Tensor scores = heads_first(q, 1).matmul(heads_first(k, group).transpose(1, 2)) * scale;
  const at::Tensor place = at::arange(keys - queries, keys, q.options().dtype(at::kLong)).unsqueeze(1);
  const at::Tensor distance = place - at::arange(keys, place.options());
  at::Tensor hidden = distance.lt(0);
  if (window) hidden = hidden.logical_or(distance.ge(*window));
  const at::Tensor weights = scores.masked_fill(hidden, -std::numeric_limits<double>::infinity()).softmax(-1);
  return weights.matmul(heads_first(v, group)).transpose(0, 1).to(q.scalar_type());
}

at::Tensor each_sequence(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Sequences& queries,
                         const Sequences& keys, double scale, std::optional<std::int64_t> window) {
  std::vector<at::Tensor> parts{q.slice(0, 0, 0)};
  for (std::int64_t i = 0; i < queries.count(); ++i) {
    const auto of_keys = [&](const at::Tensor& x) { return x.slice(0, keys.offsets[i], keys.offsets[i + 1]); };
    parts.push_back(attend(q.slice(0, queries.offsets[i], queries.offsets[i + 1]), of_keys(k), of_keys(v), scale, window));
  }
  return at::cat(parts);
}

}  // namespace attention_reference

at::Tensor attention_composite(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Sequences& sequences,
                               double scale, std::optional<std::int64_t> window) {
  return attention_reference::each_sequence(q, k, v, sequences, sequences, scale, window);
}

at::Tensor attention_with_cache_composite(const at::Tensor& q, const at::Tensor& k_cache, const at::Tensor& v_cache,
                                          const Sequences& fresh, const PagedContext& context, double scale,
                                          std::optional<std::int64_t> window) {
  const attention_cache::Gathered all = attention_cache::gather(k_cache, v_cache, fresh, context);
  return attention_reference::each_sequence(q, all.k, all.v, fresh, all.sequences, scale, window);
}

}  // namespace molt::ops
