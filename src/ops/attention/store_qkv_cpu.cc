#include "ops/attention/store_qkv_cpu.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <memory>

#include "ops/attention/attention_cpu.h"
#include "ops/rotary/rotary_cpu.h"

namespace molt::ops {

namespace store_qkv_tokens {

// The values of one token's heads into its place of a tile.
template <class T>
MOLT_INLINE void scatter(const T* values, std::int64_t count, std::int64_t slot, T* cache) {
  T* to = cache + slot / kTile * kTile * count + slot % kTile;
  for (std::int64_t i = 0; i < count; ++i) to[i * kTile] = values[i];
}

// `turned` has room for the keys of a token.
template <class T>
MOLT_INLINE void store_token(const StoreQkv<T>& work, std::int64_t token, T* turned) {
  const std::int64_t size = work.head_size, queries = work.heads * size, keys = work.kv_heads * size, slot = work.slots[token];
  const T* q = work.qkv + token * work.stride;
  const T *k = q + queries, *v = k + keys;
  const float *cos = work.cos + token * work.half, *sin = work.sin + token * work.half;
  turn_heads(q, size, work.q + token * queries, work.heads, size, cos, sin, work.half, T(1));
  turn_heads(k, size, turned, work.kv_heads, size, cos, sin, work.half, T(1));
  scatter(turned, keys, slot, work.k_cache);
  scatter(v, keys, slot, work.v_cache);
}

MOLT_CLONES void store_tokens(const StoreQkv<float>& work, std::int64_t begin, std::int64_t end, float* turned) {
  for (std::int64_t token = begin; token < end; ++token) store_token(work, token, turned);
}
MOLT_CLONES void store_tokens(const StoreQkv<double>& work, std::int64_t begin, std::int64_t end, double* turned) {
  for (std::int64_t token = begin; token < end; ++token) store_token(work, token, turned);
}

template <class T>
void store(const StoreQkv<T>& work) {
  const std::int64_t row = (work.heads + 2 * work.kv_heads) * work.head_size;
  at::parallel_for(0, work.tokens, std::max<std::int64_t>(1, 16384 / row), [&](std::int64_t begin, std::int64_t end) {
    const std::unique_ptr<T[]> turned(new T[work.kv_heads * work.head_size]);
    store_tokens(work, begin, end, turned.get());
  });
}

}  // namespace store_qkv_tokens

void store_qkv_cpu(const StoreQkv<float>& work) {
  store_qkv_tokens::store(work);
}
void store_qkv_cpu(const StoreQkv<double>& work) {
  store_qkv_tokens::store(work);
}

}  // namespace molt::ops
