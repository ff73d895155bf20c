// AdamW on a GPU: a pass over the gradients for their norm, and one that reads and writes everything else once.
#include "ops/adamw/adamw_cuda.h"
#include "ops/cuda_common.cuh"

namespace molt::ops {

namespace adamw_cuda {

constexpr int kThreads = 256, kPack = 4, kUnroll = 4, kBlocksEach = 8;  // blocks of the norm's pass on a multiprocessor

__global__ void __launch_bounds__(kThreads) squares_kernel(const float* values, std::int64_t count, float* shares) {
  __shared__ float shared[32];
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * kThreads, packs = count / kPack;
  std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  float sums[kUnroll] = {};
  const auto add = [&](const cuda::Pack<float, kPack>& pack, float& sum) {
#pragma unroll
    for (int k = 0; k < kPack; ++k) sum += pack[k] * pack[k];
  };
  if (i < count - packs * kPack) sums[0] = values[packs * kPack + i] * values[packs * kPack + i];
  for (; i + (kUnroll - 1) * stride < packs; i += kUnroll * stride) {
    cuda::Pack<float, kPack> pack[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) pack[u] = cuda::load<kPack>(values + (i + u * stride) * kPack);
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) add(pack[u], sums[u]);
  }
  for (; i < packs; i += stride) add(cuda::load<kPack>(values + i * kPack), sums[0]);
  const float sum = cuda::block_sum((sums[0] + sums[1]) + (sums[2] + sums[3]), shared);
  if (threadIdx.x == 0) shares[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kThreads) clip_kernel(const ClipCuda work) {
  __shared__ double sums[kThreads];
  double sum = 0;
  for (std::int64_t i = threadIdx.x; i < work.count; i += kThreads) sum += work.shares[i];
  sums[threadIdx.x] = sum;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
  }
  if (threadIdx.x > 0) return;
  const double norm = sqrt(sums[0]) / work.divisor;
  *work.norm = static_cast<float>(norm);
  *work.scale = static_cast<float>(work.clip_norm > 0 ? work.divisor * fmax(1.0, norm / work.clip_norm) : work.divisor);
  *work.broken = isfinite(norm) && !(work.limit && norm > *work.limit) ? 0.0f : 1.0f;
}

// The factors of a range.
struct Factors {
  float gradient, decay, rate, root2;
};

__device__ void update(const AdamWCuda& work, const Factors& factors, float gradient, float& weight, float& m, float& v) {
  const float g = gradient * factors.gradient;
  m = work.beta1 * m + work.rest1 * g;
  v = work.beta2 * v + work.rest2 * g * g;
  weight -= factors.decay * weight + factors.rate * m / (sqrtf(v) * factors.root2 + work.epsilon);
}

// The range that value `at` is in.
__device__ std::int64_t range_of(const AdamWCuda& work, std::int64_t at) {
  std::int64_t low = 0, high = work.range_count - 1;
  while (low < high) {
    const std::int64_t middle = (low + high) / 2;
    if (work.ranges[3 * middle] <= static_cast<double>(at)) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

__global__ void __launch_bounds__(kThreads) update_kernel(const AdamWCuda work) {
  if (*work.broken != 0.0f) return;
  const std::int64_t block = static_cast<std::int64_t>(blockIdx.x) * kThreads * kPack, at = block + threadIdx.x * kPack;
  if (at >= work.count) return;
  const bool whole = at + kPack <= work.count;
  cuda::Pack<float, kPack> gradients, weights, m, v;
  if (whole) {
    gradients = cuda::load<kPack>(work.gradients + at);
    weights = cuda::load<kPack>(work.weights + at);
    m = cuda::load<kPack>(work.moment1 + at);
    v = cuda::load<kPack>(work.moment2 + at);
  } else {
    for (int i = 0; at + i < work.count; ++i) {
      gradients.values[i] = work.gradients[at + i], weights.values[i] = work.weights[at + i];
      m.values[i] = work.moment1[at + i], v.values[i] = work.moment2[at + i];
    }
  }
  std::int64_t range = range_of(work, block);
  while (work.ranges[3 * range] <= static_cast<double>(at)) ++range;
  const float decay = static_cast<float>(work.ranges[3 * range + 1]);
  const float rate = work.learning_rate * static_cast<float>(work.ranges[3 * range + 2]);
  const Factors factors{1.0f / *work.scale, rate * decay, rate / work.correction1, rsqrtf(work.correction2)};
#pragma unroll
  for (int i = 0; i < kPack; ++i) update(work, factors, gradients.values[i], weights.values[i], m.values[i], v.values[i]);
  auto* narrow = cuda::as<__nv_bfloat16>(work.narrow);
  if (whole) {
    cuda::store(work.weights + at, weights);
    cuda::store(work.moment1 + at, m);
    cuda::store(work.moment2 + at, v);
    if (narrow) cuda::store(narrow + at, weights.values);
  } else {
    for (int i = 0; at + i < work.count; ++i) {
      work.weights[at + i] = weights[i], work.moment1[at + i] = m[i], work.moment2[at + i] = v[i];
      if (narrow) narrow[at + i] = static_cast<__nv_bfloat16>(weights[i]);
    }
  }
}

}  // namespace adamw_cuda

std::int64_t cuda_square_shares() {
  return static_cast<std::int64_t>(cuda::multiprocessors()) * adamw_cuda::kBlocksEach;
}

void cuda_sum_squares(const float* values, std::int64_t count, float* shares, void* stream) {
  using namespace adamw_cuda;
  squares_kernel<<<static_cast<unsigned>(cuda_square_shares()), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(values, count,
                                                                                                                  shares);
  cuda::check_launch("sum_squares");
}

void cuda_clip(const ClipCuda& work, void* stream) {
  adamw_cuda::clip_kernel<<<1, adamw_cuda::kThreads, 0, static_cast<cudaStream_t>(stream)>>>(work);
  cuda::check_launch("clip");
}

void cuda_adamw(const AdamWCuda& work, void* stream) {
  using namespace adamw_cuda;
  const auto blocks = static_cast<unsigned>(cuda::divide_up(work.count, kThreads * kPack));
  if (blocks == 0) return;
  update_kernel<<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(work);
  cuda::check_launch("adamw");
}

}  // namespace molt::ops
