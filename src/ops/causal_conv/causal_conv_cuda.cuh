// What the forward and the backward kernel of the causal convolution share. A thread walks along a run of tokens with its taps
// and the last rows of x in registers, for R repeats of N neighbouring columns; loads and stores are packs of N values. Sequences
// that begin inside a run restart the window.
#pragma once
#include "ops/causal_conv/causal_conv_kernels.h"
#include "ops/cuda_common.cuh"

namespace molt::ops::conv::conv_cuda {

// The sequence whose token t is: the last one that begins at or before it.
__device__ inline std::int64_t sequence_of(const Arguments& a, std::int64_t t) {
  std::int64_t low = 0, high = a.sequences;
  while (high - low > 1) {
    const std::int64_t middle = (low + high) / 2;
    (a.offsets[middle] <= t ? low : high) = middle;
  }
  return low;
}

// What a thread works on: N columns from `column` on and R of the repeats that read them, repeat r in the channels from
// channel(r) on. Threads side by side share the columns, repeat / R of them.
template <class T, int N, int R, int W>
struct Slot {
  std::int64_t column, first, group_size;
  float bias[R][N], taps[R][N][W];

  __device__ Slot(const Arguments& a, std::int64_t index) : group_size(a.group_size) {
    const std::int64_t sharing = a.repeat / R;
    column = index / sharing * N;
    first = (column / group_size * a.repeat + index % sharing * R) * group_size + column % group_size;
    a.weight_type == DataType::bfloat16 ? load<__nv_bfloat16>(a) : load<float>(a);
  }
  template <class Weight>
  __device__ void load(const Arguments& a) {
#pragma unroll
    for (int r = 0; r < R; ++r) {
#pragma unroll
      for (int i = 0; i < N; ++i) {
        bias[r][i] = a.bias ? static_cast<float>(cuda::as<Weight>(a.bias)[channel(r) + i]) : 0.0f;
#pragma unroll
        for (int k = 0; k < W; ++k) taps[r][i][k] = static_cast<float>(cuda::as<Weight>(a.weight)[(channel(r) + i) * W + k]);
      }
    }
  }
  __device__ std::int64_t channel(int r) const { return first + r * group_size; }
};

template <int N, int W>
using Window = float[W - 1][N];  // the last rows of x, oldest first

template <class T, int N>
__device__ void unpack(const cuda::Pack<T, N>& pack, float (&to)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) to[i] = pack[i];
}

// The rows before token t of sequence s, which begins at `begin`.
template <class T, int N, int W>
__device__ void look_back(const Arguments& a, std::int64_t column, std::int64_t s, std::int64_t begin, std::int64_t t,
                          Window<N, W>& rows) {
  cuda::Pack<T, N> loaded[W - 1];
#pragma unroll
  for (int j = 0; j < W - 1; ++j) {  // without branches all are on their way together
    loaded[j] = cuda::load<N>(cuda::as<T>(a.x) + max(t - (W - 1) + j, begin) * a.x_stride + column);
  }
#pragma unroll
  for (int j = 0; j < W - 1; ++j) {
    const std::int64_t source = t - (W - 1) + j;
    if (source >= begin) {
      unpack(loaded[j], rows[j]);
      continue;
    }
    const T* window = cuda::as<T>(a.initial_window) + (s * a.columns + column) * (W - 1) + source - begin + W - 1;
#pragma unroll
    for (int i = 0; i < N; ++i) rows[j][i] = a.initial_window ? static_cast<float>(window[i * (W - 1)]) : 0.0f;
  }
}

// The convolution's value from the rows at this token and before.
template <int N, int W>
__device__ float convolve(const float (*rows)[N], const float (&taps)[W], float bias, int i) {
  float value = bias;
#pragma unroll
  for (int k = 0; k < W; ++k) value += taps[k] * rows[k][i];
  return value;
}

// rows: those of the window, then the loaded ones.
template <int U, class T, int N, int M>
__device__ void extend(const float (&window)[M][N], const cuda::Pack<T, N> (&loaded)[U], float (&rows)[M + U][N]) {
#pragma unroll
  for (int j = 0; j < M + U; ++j) {
#pragma unroll
    for (int i = 0; i < N; ++i) rows[j][i] = j < M ? window[j][i] : loaded[j - M][i];
  }
}
template <int N, int M, int L>
__device__ void keep_last(const float (&rows)[L][N], float (&window)[M][N]) {
#pragma unroll
  for (int j = 0; j < M; ++j) {
#pragma unroll
    for (int i = 0; i < N; ++i) window[j][i] = rows[L - M + j][i];
  }
}

template <int U, class T, int N, int R, int W>
__device__ void load_rows(const Arguments& a, const Slot<T, N, R, W>& slot, std::int64_t t, cuda::Pack<T, N> (&rows)[U]) {
#pragma unroll
  for (int u = 0; u < U; ++u) rows[u] = cuda::load<N>(cuda::as<T>(a.x) + (t + u) * a.x_stride + slot.column);
}

// Whether packs of N values can be read from x, and their channels lie side by side.
template <class T, int N>
bool packs_fit(const Arguments& a) {
  constexpr std::int64_t bytes = sizeof(T) * N < 16 ? sizeof(T) * N : 16;
  const bool groups = a.repeat == 1 || a.group_size % N == 0;
  return a.width == 4 && a.columns % N == 0 && groups && a.x_stride % N == 0 && cuda::aligned(a.x, bytes);
}

// Calls launch.template operator()<1, W>(), for any shape.
template <class Launch>
void with_scalars(const Arguments& a, const Launch& launch) {
  switch (a.width) {
    case 2:
      return launch.template operator()<1, 2>();
    case 3:
      return launch.template operator()<1, 3>();
    default:
      return launch.template operator()<1, 4>();
  }
}

}  // namespace molt::ops::conv::conv_cuda
