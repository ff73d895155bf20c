// Rounding rows to e4m3 on a GPU: a block has a row, reads it for its largest value and once more, from the cache, to round it.
#include <cuda_fp8.h>

#include "ops/cuda_common.cuh"
#include "ops/fp8_linear/fp8_linear_cuda.h"

namespace molt::ops {

namespace fp8_rows {

constexpr int kThreads = 256, kVector = 8;
constexpr float kLargest = 448.0f;

__device__ float block_maximum(float value) {
  __shared__ float of_warps[kThreads / 32];
  for (int offset = 16; offset > 0; offset /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, offset));
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = value;
  __syncthreads();
  for (int i = 0; i < kThreads / 32; ++i) value = fmaxf(value, of_warps[i]);
  return value;
}

template <class T>
__global__ void __launch_bounds__(kThreads) kernel(const Fp8RowsCuda work) {
  const std::int64_t row = blockIdx.x;
  const T* x = cuda::as<T>(work.x) + row * work.columns;
  float largest = 0.0f;
  for (std::int64_t at = threadIdx.x * kVector; at < work.columns; at += kThreads * kVector) {
    const auto pack = cuda::load<kVector>(x + at);
#pragma unroll
    for (int i = 0; i < kVector; ++i) largest = fmaxf(largest, fabsf(pack[i]));
  }
  largest = block_maximum(largest);
  const float scale = largest > 0.0f ? largest / kLargest : 1.0f, inverse = 1.0f / scale;
  if (threadIdx.x == 0) work.scales[row] = scale;
  for (std::int64_t at = threadIdx.x * kVector; at < work.columns; at += kThreads * kVector) {
    const auto pack = cuda::load<kVector>(x + at);
    alignas(8) __nv_fp8x4_e4m3 rounded[kVector / 4];
#pragma unroll
    for (int i = 0; i < kVector; i += 4) {
      const float4 scaled = {pack[i] * inverse, pack[i + 1] * inverse, pack[i + 2] * inverse, pack[i + 3] * inverse};
      rounded[i / 4] = __nv_fp8x4_e4m3(scaled);
    }
    *reinterpret_cast<uint2*>(static_cast<char*>(work.values) + row * work.columns + at) =
        *reinterpret_cast<const uint2*>(rounded);
  }
}

}  // namespace fp8_rows

void fp8_rows_cuda(const Fp8RowsCuda& work, void* stream) {
  if (work.rows == 0) return;
  cuda::with_type(work.type, [&]<class T>() {
    fp8_rows::kernel<T><<<static_cast<unsigned>(work.rows), fp8_rows::kThreads, 0, static_cast<cudaStream_t>(stream)>>>(work);
  });
  cuda::check_launch("fp8_rows");
}

}  // namespace molt::ops
