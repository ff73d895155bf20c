// Sums of shares: a block has 32 columns of one sum, a warp every 16th share of them.
#include "ops/cuda_common.cuh"
#include "ops/sum_shares.h"

namespace molt::ops {

namespace sum_shares_cuda {

constexpr int kWarps = 16;

struct Sums {
  Shares of[kMostSums];
  unsigned end[kMostSums];  // where the blocks of each end
};

__global__ void __launch_bounds__(32 * kWarps) sum_kernel(const Sums sums) {
  __shared__ float parts[kWarps][32];
  unsigned which = 0;
  while (blockIdx.x >= sums.end[which]) ++which;
  const Shares& own = sums.of[which];
  const std::int64_t column = std::int64_t{blockIdx.x - (which ? sums.end[which - 1] : 0)} * 32 + threadIdx.x;
  cuda::await_previous();
  float sum = 0.0f;
  if (column < own.columns) {
#pragma unroll 4
    for (std::int64_t p = threadIdx.y; p < own.parts; p += kWarps) sum += own.shares[p * own.columns + column];
  }
  parts[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || column >= own.columns) return;
#pragma unroll
  for (int w = 1; w < kWarps; ++w) sum += parts[w][threadIdx.x];
  if (own.type == DataType::bfloat16) {
    cuda::as<__nv_bfloat16>(own.to)[column] = static_cast<__nv_bfloat16>(sum);
  } else {
    cuda::as<float>(own.to)[column] = sum;
  }
}

}  // namespace sum_shares_cuda

void cuda_sum_shares(std::span<const Shares> sums, void* stream) {
  using namespace sum_shares_cuda;
  Sums all;
  unsigned blocks = 0;
  for (std::size_t i = 0; i < sums.size(); ++i) {
    blocks += static_cast<unsigned>(cuda::divide_up(sums[i].columns, 32));
    all.of[i] = sums[i], all.end[i] = blocks;
  }
  if (blocks == 0) return;
  cuda::launch_behind(sum_kernel, blocks, dim3(32, kWarps), 0, static_cast<cudaStream_t>(stream), all);
  cuda::check_launch("sum_shares");
}

}  // namespace molt::ops
