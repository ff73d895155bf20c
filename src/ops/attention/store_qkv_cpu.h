// What generation does with a projection of queries, keys and values on the CPU, in one pass.
#pragma once
#include <cstdint>

namespace molt::ops {

// attention.h has the contract; caches in tiles (attention_cpu.h).
template <class T>
struct StoreQkv {
  std::int64_t tokens, heads, kv_heads, head_size;
  const T* qkv;         // rows of (heads + 2 kv_heads) * head_size
  std::int64_t stride;  // from row to row
  const float *cos, *sin;
  std::int64_t half;  // columns of cos and sin; 0: nothing is turned
  const std::int64_t* slots;
  T *q, *k_cache, *v_cache;
};

void store_qkv_cpu(const StoreQkv<float>& work);
void store_qkv_cpu(const StoreQkv<double>& work);

}  // namespace molt::ops
