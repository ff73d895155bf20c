// What CUDA kernels of several operations share: neighbouring values in accesses of up to 16 bytes, sums over threads, launches.
#pragma once
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "ops/data_type.h"

namespace molt::ops::cuda {

// N neighbours in memory, which begin at a multiple of min(16, N * sizeof(T)) bytes.
template <class T, int N>
struct alignas(N * sizeof(T) < 16 ? N * sizeof(T) : 16) Pack {
  T values[N];

  __device__ float operator[](int i) const { return static_cast<float>(values[i]); }
  __device__ static Pack of(const float (&from)[N]) {
    Pack pack;
#pragma unroll
    for (int i = 0; i < N; ++i) pack.values[i] = static_cast<T>(from[i]);
    return pack;
  }
};

// Two bfloat16 a word: one instruction makes a float of either, where halves of registers would cost two.
template <int N>
  requires(N % 2 == 0)
struct alignas(N * 2 < 16 ? N * 2 : 16) Pack<__nv_bfloat16, N> {
  unsigned words[N / 2];

  __device__ float operator[](int i) const {
    return __uint_as_float(i % 2 == 0 ? words[i / 2] << 16 : words[i / 2] & 0xffff0000u);
  }
  __device__ static Pack of(const float (&from)[N]) {
    Pack pack;
#pragma unroll
    for (int i = 0; i < N; i += 2) {
      const __nv_bfloat162 both = __floats2bfloat162_rn(from[i], from[i + 1]);
      pack.words[i / 2] = *reinterpret_cast<const unsigned*>(&both);
    }
    return pack;
  }
};

template <int N, class T>
__device__ Pack<T, N> load(const T* from) {
  return *reinterpret_cast<const Pack<T, N>*>(from);
}
template <int N, class T>
__device__ void store(T* to, const Pack<T, N>& pack) {
  *reinterpret_cast<Pack<T, N>*>(to) = pack;
}
template <class T, int N>
__device__ void store(T* to, const float (&values)[N]) {
  store(to, Pack<T, N>::of(values));
}

// Values of T in 16 bytes.
template <class T>
inline constexpr int kPack = 16 / sizeof(T);

template <class T>
__device__ const T* as(const void* pointer) {
  return static_cast<const T*>(pointer);
}
template <class T>
__device__ T* as(void* pointer) {
  return static_cast<T*>(pointer);
}

// One of the values of a small parameter, float32 or bfloat16; zero where there is none.
__device__ inline float parameter(const void* from, std::int64_t i, DataType type = DataType::float32) {
  if (!from) return 0.0f;
  return type == DataType::bfloat16 ? static_cast<float>(as<__nv_bfloat16>(from)[i]) : as<float>(from)[i];
}

// Whether Packs of `bytes` (16, 8, 4, …) may lie there: a pointer, or a stride in bytes.
inline bool aligned(const void* pointer, std::int64_t bytes = 16) {
  return reinterpret_cast<std::uintptr_t>(pointer) % bytes == 0;
}

// 1 / (1 + exp(-x)) within 2e-7 (1 + |x|) of its value, by the special-function units alone: kernels that move few bytes for each
// value are bound by them and by issue.
__device__ inline float sigmoid(float x) {
  float power, result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x * -1.4426950408889634f));
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(1.0f + power));
  return result;
}

__device__ inline float warp_sum(float value) {
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
}

// The sum over threadIdx.x, a multiple of 32 threads, the same in each of them. `shared` has a float for each warp and is free
// again after the next barrier; a single warp needs neither.
__device__ inline float block_sum(float value, float* shared) {
  value = warp_sum(value);
  if (blockDim.x == 32) return value;
  const int lane = threadIdx.x % 32, warps = blockDim.x / 32;
  if (lane == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  return warp_sum(lane < warps ? shared[lane] : 0.0f);
}

inline std::int64_t divide_up(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

// Multiprocessors of the current GPU.
inline int multiprocessors() {
  int device = 0, count = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  return count;
}

// Programmatic dependent launch (Hopper and newer). A kernel that is launched `behind` the one before it on the stream may begin
// as soon as all blocks of that one have called let_next_begin() or ended. Before await_previous() it must touch nothing that a
// kernel not known to be over writes or reads; what came before the previous kernel is known to be over if that one awaited it
// before it let this one begin, or was launched the ordinary way. Some thread of each kernel must await, so that the end of one
// is that of all before it.
__device__ inline void let_next_begin() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}
__device__ inline void await_previous() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
template <class... Parameters>
void launch_behind(void (*kernel)(Parameters...), dim3 blocks, dim3 threads, std::size_t shared_bytes, cudaStream_t stream,
                   const Parameters&... parameters) {
  int device = 0, major = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  cudaLaunchAttribute early;
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  const cudaLaunchConfig_t config{.gridDim = blocks,
                                  .blockDim = threads,
                                  .dynamicSmemBytes = shared_bytes,
                                  .stream = stream,
                                  .attrs = &early,
                                  .numAttrs = major >= 9 ? 1u : 0u};
  cudaLaunchKernelEx(&config, kernel, parameters...);
}

inline void check_launch(const char* operation) {
  if (const cudaError_t error = cudaGetLastError())
    throw std::runtime_error(std::string(operation) + ": " + cudaGetErrorString(error));
}

// Calls launch.template operator()<T>() with the type that `type` names.
template <class Launch>
void with_type(DataType type, const Launch& launch) {
  if (type == DataType::bfloat16) {
    launch.template operator()<__nv_bfloat16>();
  } else {
    launch.template operator()<float>();
  }
}

}  // namespace molt::ops::cuda
