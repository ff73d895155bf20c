// Sums of shares: a block has 32 columns, a warp every 16th share of them.
#include "ops/cuda_common.cuh"
#include "ops/sum_shares.h"

namespace molt::ops {

namespace sum_shares_cuda {

constexpr int kWarps = 16;

template <class T>
__global__ void sum_kernel(const float* shares, std::int64_t parts, std::int64_t columns, T* to) {
  __shared__ float sums[kWarps][32];
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * 32 + threadIdx.x;
  float sum = 0.0f;
  if (column < columns) {
#pragma unroll 4
    for (std::int64_t p = threadIdx.y; p < parts; p += kWarps) sum += shares[p * columns + column];
  }
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || column >= columns) return;
  for (int w = 1; w < kWarps; ++w) sum += sums[w][threadIdx.x];
  to[column] = static_cast<T>(sum);
}

}  // namespace sum_shares_cuda

void cuda_sum_shares(const float* shares, std::int64_t parts, std::int64_t columns, void* to, DataType type, void* stream) {
  using namespace sum_shares_cuda;
  if (columns == 0) return;
  const auto blocks = static_cast<unsigned>(cuda::divide_up(columns, 32));
  cuda::with_type(type, [&]<class T>() {
    sum_kernel<<<blocks, dim3(32, kWarps), 0, static_cast<cudaStream_t>(stream)>>>(shares, parts, columns, static_cast<T*>(to));
  });
  cuda::check_launch("sum_shares");
}

}  // namespace molt::ops
