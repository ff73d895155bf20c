// SwiGLU on a GPU: a thread has a few packs of neighbours of one row.
#include "ops/cuda_common.cuh"
#include "ops/swiglu/swiglu_cuda.h"

namespace molt::ops {

namespace swiglu_cuda {

constexpr int kThreads = 256;

// Block b of a row has packs b * kThreads * kPacks …, of which a thread takes every kThreads-th.
template <class T, int N, int kPacks, bool kBackward>
__global__ void kernel(const SwigluCuda work, unsigned blocks) {
  const std::int64_t n = work.intermediate, row = blockIdx.x / blocks;
  const std::int64_t first = (static_cast<std::int64_t>(blockIdx.x % blocks) * kPacks * kThreads + threadIdx.x) * N;
  const T *gate = cuda::as<T>(work.gate_up) + row * 2 * n + first, *up = gate + n;
  cuda::Pack<T, N> g[kPacks], u[kPacks], d[kPacks];
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    const int at = k * kThreads * N;
    if (first + at >= n) break;
    g[k] = cuda::load<N>(gate + at);
    u[k] = cuda::load<N>(up + at);
    if constexpr (kBackward) d[k] = cuda::load<N>(cuda::as<T>(work.gradient) + row * n + first + at);
  }
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    const int at = k * kThreads * N;
    if (first + at >= n) break;
    float first_out[N], second_out[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float x = g[k][i], s = cuda::sigmoid(x);
      if constexpr (kBackward) {
        const float gradient = d[k][i] * s;
        first_out[i] = gradient * u[k][i] * (1.0f + x * (1.0f - s));
        second_out[i] = gradient * x;
      } else {
        first_out[i] = x * s * u[k][i];
      }
    }
    if constexpr (kBackward) {
      T* to = cuda::as<T>(work.out) + row * 2 * n + first + at;
      cuda::store(to, first_out);
      cuda::store(to + n, second_out);
    } else {
      cuda::store(cuda::as<T>(work.out) + row * n + first + at, first_out);
    }
  }
}

template <bool kBackward, class T, int N>
void launch_packs(const SwigluCuda& work, cudaStream_t stream) {
  constexpr int packs = 2;
  const auto blocks = static_cast<unsigned>(cuda::divide_up(work.intermediate, N * packs * kThreads));
  kernel<T, N, packs, kBackward><<<static_cast<unsigned>(work.rows) * blocks, kThreads, 0, stream>>>(work, blocks);
}

template <bool kBackward>
void launch(const SwigluCuda& work, void* stream) {
  if (work.rows == 0 || work.intermediate == 0) return;
  cuda::with_type(work.type, [&]<class T>() {
    constexpr int N = cuda::kPack<T>;
    const bool packs = work.intermediate % N == 0 && cuda::aligned(work.gate_up) && cuda::aligned(work.gradient);
    if (packs) {
      launch_packs<kBackward, T, N>(work, static_cast<cudaStream_t>(stream));
    } else {
      launch_packs<kBackward, T, 1>(work, static_cast<cudaStream_t>(stream));
    }
  });
  cuda::check_launch("swiglu");
}

}  // namespace swiglu_cuda

void cuda_swiglu_forward(const SwigluCuda& work, void* stream) {
  swiglu_cuda::launch<false>(work, stream);
}

void cuda_swiglu_backward(const SwigluCuda& work, void* stream) {
  swiglu_cuda::launch<true>(work, stream);
}

}  // namespace molt::ops
