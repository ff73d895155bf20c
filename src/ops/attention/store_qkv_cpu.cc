#include "ops/attention/store_qkv_cpu.h"

#include <ATen/Parallel.h>

#include <algorithm>

#include "ops/attention/attention_cpu.h"
#include "ops/rotary/rotary_cpu.h"
#include "ops/scratch.h"

namespace molt::ops {

namespace store_qkv_tokens {

// Where the first of a token's `count` values lies in its tile; the others follow kTile apart.
template <class T>
MOLT_INLINE T* place(T* cache, std::int64_t slot, std::int64_t count) {
  return cache + slot / kTile * kTile * count + slot % kTile;
}

template <class T>
MOLT_INLINE void scatter(const T* values, std::int64_t count, T* to) {
  for (std::int64_t i = 0; i < count; ++i) to[i * kTile] = values[i];
}

// One token's values lie on as many cache lines, all to be fetched first.
template <class T>
MOLT_INLINE void ask_for(const StoreQkv<T>& work, std::int64_t token) {
  const std::int64_t keys = work.kv_heads * work.head_size;
  const T *k = place(work.k_cache, work.slots[token], keys), *v = place(work.v_cache, work.slots[token], keys);
  for (std::int64_t i = 0; i < keys; ++i) {
    __builtin_prefetch(k + i * kTile, /*rw=*/1);
    __builtin_prefetch(v + i * kTile, /*rw=*/1);
  }
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
  scatter(turned, keys, place(work.k_cache, slot, keys));
  scatter(v, keys, place(work.v_cache, slot, keys));
}

template <class T>
MOLT_INLINE void store_each(const StoreQkv<T>& work, std::int64_t begin, std::int64_t end, T* turned) {
  for (std::int64_t token = begin; token < end; ++token) {
    const bool leaves_tile = token + 1 < end && work.slots[token + 1] / kTile != work.slots[token] / kTile;
    if (leaves_tile) ask_for(work, token + 1);
    store_token(work, token, turned);
  }
}

MOLT_CLONES void store_tokens(const StoreQkv<float>& work, std::int64_t begin, std::int64_t end, float* turned) {
  store_each(work, begin, end, turned);
}
MOLT_CLONES void store_tokens(const StoreQkv<double>& work, std::int64_t begin, std::int64_t end, double* turned) {
  store_each(work, begin, end, turned);
}

template <class T>
void store(const StoreQkv<T>& work) {
  const std::int64_t row = (work.heads + 2 * work.kv_heads) * work.head_size;
  at::parallel_for(0, work.tokens, std::max<std::int64_t>(1, 16384 / row), [&](std::int64_t begin, std::int64_t end) {
    Scratch<T> turned(work.kv_heads * work.head_size);
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
