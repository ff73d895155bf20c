// Rotary embedding on a GPU: a thread has the same few neighbours in both halves of one head of a token.
#include "ops/cuda_common.cuh"
#include "ops/rotary/rotary_kernels.h"

namespace molt::ops {

namespace rotary_cuda {

constexpr int kThreads = 256;

// Head `head` of a token, counted through the parts.
template <class T>
struct Head {
  const T* from;
  T* to;
  bool turns;

  __device__ Head(const RotaryWork& work, std::int64_t token, std::int64_t head) {
    int i = 0;
    while (head >= work.parts[i].heads) head -= work.parts[i++].heads;
    const RotaryPart& part = work.parts[i];
    from = part.from ? cuda::as<T>(part.from) + token * part.from_stride + head * part.from_head_stride : nullptr;
    to = cuda::as<T>(part.to) + token * part.to_stride + head * work.head_size;
    turns = part.turns;
  }
};

// A head is `half` pairs (i, i + half), then values without a partner, which are copied. Block (token, chunk of heads).
template <class T, int N>
__global__ void __launch_bounds__(kThreads) turn_kernel(const RotaryWork work, int heads, int chunks, std::int64_t half) {
  const std::int64_t token = blockIdx.x / chunks;
  const int head = static_cast<int>(blockIdx.x % chunks * blockDim.y + threadIdx.y);
  if (head >= heads) return;
  const Head<T> place(work, token, head);
  const std::int64_t pairs = half / N, items = (work.head_size - half) / N;  // packs with a partner, and all first packs
  for (std::int64_t item = threadIdx.x; item < items; item += blockDim.x) {
    const bool paired = item < pairs;
    const std::int64_t at = paired ? item * N : item * N + half;
    const cuda::Pack<T, N> zero = {};
    cuda::Pack<T, N> a = place.from ? cuda::load<N>(place.from + at) : zero, b = zero;
    if (paired && place.from) b = cuda::load<N>(place.from + at + half);
    if (paired && place.turns) {
      const auto cos = cuda::load<N>(work.cos + token * half + at), sin = cuda::load<N>(work.sin + token * half + at);
      float x[N], y[N];
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const float s = work.back ? -sin[i] : sin[i];
        x[i] = a[i] * cos[i] - b[i] * s;
        y[i] = b[i] * cos[i] + a[i] * s;
      }
      a = cuda::Pack<T, N>::of(x), b = cuda::Pack<T, N>::of(y);
    }
    cuda::store(place.to + at, a);
    if (paired) cuda::store(place.to + at + half, b);
  }
}

template <class T, int N>
void launch(const RotaryWork& work, int heads, cudaStream_t stream) {
  // Where nothing turns, halves of a head are copied as pairs.
  const std::int64_t half = work.cos ? work.half : work.head_size / (2 * N) * N;
  const auto items = static_cast<int>(std::min<std::int64_t>((work.head_size - half) / N, kThreads));
  const int chunks = static_cast<int>(cuda::divide_up(heads, kThreads / items));
  const int rows = static_cast<int>(cuda::divide_up(heads, chunks));
  turn_kernel<T, N><<<static_cast<unsigned>(work.tokens * chunks), dim3(items, rows), 0, stream>>>(work, heads, chunks, half);
}

__global__ void table_kernel(const RotaryTableWork work) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= work.tokens * work.half) return;
  const std::int64_t token = i / work.half;
  const auto position = static_cast<float>(work.wide_positions ? cuda::as<std::int64_t>(work.positions)[token]
                                                               : cuda::as<std::int32_t>(work.positions)[token]);
  float sin, cos;
  sincosf(position * work.frequencies[i % work.half], &sin, &cos);
  work.cos[i] = cos * work.factor;
  work.sin[i] = sin * work.factor;
}

}  // namespace rotary_cuda

void cuda_rotary(const RotaryWork& work, void* stream) {
  if (work.tokens == 0 || work.head_size == 0) return;
  std::int64_t heads = 0;
  for (const RotaryPart& part : work.parts) heads += part.heads;
  cuda::with_type(work.type, [&]<class T>() {
    constexpr int N = cuda::kPack<T>;
    bool packs = work.head_size % N == 0 && work.half % N == 0 && cuda::aligned(work.cos) && cuda::aligned(work.sin);
    for (const RotaryPart& part : work.parts) {
      packs = packs && cuda::aligned(part.from) && cuda::aligned(part.to) && part.from_stride % N == 0 &&
              part.from_head_stride % N == 0 && part.to_stride % N == 0;
    }
    if (packs) {
      rotary_cuda::launch<T, N>(work, static_cast<int>(heads), static_cast<cudaStream_t>(stream));
    } else {
      rotary_cuda::launch<T, 1>(work, static_cast<int>(heads), static_cast<cudaStream_t>(stream));
    }
  });
  cuda::check_launch("rotary");
}

void cuda_rotary_table(const RotaryTableWork& work, void* stream) {
  const auto blocks = static_cast<unsigned>(cuda::divide_up(work.tokens * work.half, rotary_cuda::kThreads));
  if (blocks == 0) return;
  rotary_cuda::table_kernel<<<blocks, rotary_cuda::kThreads, 0, static_cast<cudaStream_t>(stream)>>>(work);
  cuda::check_launch("rotary_table");
}

}  // namespace molt::ops
