// Keys and values of new tokens on their way into the cache.
#include "ops/attention/attention_decode_kernels.h"
#include "ops/cuda_common.cuh"

namespace molt::ops::decode {

namespace store_cuda {

using cuda::as;

// One thread a value: a step of generation has few.
template <class T>
__global__ void store_kernel(const Store s) {
  const int size = static_cast<int>(s.head_size), half = static_cast<int>(s.half), heads = static_cast<int>(s.heads),
            kv_heads = static_cast<int>(s.kv_heads);
  const int i = static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x);
  const std::int64_t t = blockIdx.x;
  if (i >= (heads + 2 * kv_heads) * size) return;
  const int head = i / size, d = i % size;
  const T* row = as<T>(s.qkv) + t * s.stride;
  T value = row[i];
  if (head < heads + kv_heads && d < 2 * half) {
    const bool first = d < half;
    const int angle = first ? d : d - half;
    const float other = static_cast<float>(row[first ? i + half : i - half]), sine = s.sin[t * half + angle];
    value = static_cast<T>(static_cast<float>(value) * s.cos[t * half + angle] + (first ? -other : other) * sine);
  }
  if (head < heads) {
    as<T>(s.q)[(t * heads) * size + i] = value;
    return;
  }
  const std::int64_t slot = s.slots[t];
  if (slot < 0) return;
  const bool key = head < heads + kv_heads;
  as<T>(key ? s.k_cache : s.v_cache)[slot * kv_heads * size + i - (key ? heads : heads + kv_heads) * size] = value;
}

}  // namespace store_cuda

void cuda_store(const Store& s, void* stream) {
  if (s.tokens == 0) return;
  constexpr int threads = 128;
  const std::int64_t values = (s.heads + 2 * s.kv_heads) * s.head_size;
  const dim3 grid(static_cast<unsigned>(s.tokens), static_cast<unsigned>((values + threads - 1) / threads));
  s.bfloat16 ? store_cuda::store_kernel<__nv_bfloat16><<<grid, threads, 0, static_cast<cudaStream_t>(stream)>>>(s)
             : store_cuda::store_kernel<float><<<grid, threads, 0, static_cast<cudaStream_t>(stream)>>>(s);
  cuda::check_launch("store_qkv");
}

}  // namespace molt::ops::decode
