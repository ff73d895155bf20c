// The causal convolution on a GPU, forward.
#include "ops/causal_conv/causal_conv_cuda.cuh"

namespace molt::ops::conv {

namespace conv_cuda {

constexpr int kForwardSlots = 128, kForwardBlocks = 5;  // threads of a block, blocks at once on a multiprocessor
constexpr int kForwardUnroll = 8;                       // tokens that a thread reads at once
constexpr std::int64_t kForwardShortest = 16;           // tokens of a run

// Writes y of the U tokens from t on, whose rows are loaded, and moves the window behind them.
template <int U, class T, int N, int R, int W>
__device__ void forward_tokens(const Arguments& a, const Slot<T, N, R, W>& slot, std::int64_t t,
                               const cuda::Pack<T, N> (&loaded)[U], Window<N, W>& window) {
  float rows[W - 1 + U][N];
  extend(window, loaded, rows);
#pragma unroll
  for (int u = 0; u < U; ++u) {
#pragma unroll
    for (int r = 0; r < R; ++r) {
      float y[N];
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const float value = convolve(rows + u, slot.taps[r][i], slot.bias[r][i], i);
        y[i] = a.silu ? value * cuda::sigmoid(value) : value;
      }
      cuda::store(cuda::as<T>(a.y) + (t + u) * a.channels + slot.channel(r), y);
    }
  }
  keep_last(rows, window);
}

// Tokens `t` to `end` of one sequence. The next rows are on their way while these are worked on.
template <class T, int N, int R, int W>
__device__ void forward_piece(const Arguments& a, const Slot<T, N, R, W>& slot, std::int64_t s, std::int64_t t,
                              std::int64_t end) {
  Window<N, W> window;
  look_back<T, N, W>(a, slot.column, s, a.offsets[s], t, window);
  cuda::Pack<T, N> next[kForwardUnroll], one[1];
  if (t + kForwardUnroll <= end) load_rows(a, slot, t, next);
  for (; t + kForwardUnroll <= end; t += kForwardUnroll) {
    cuda::Pack<T, N> rows[kForwardUnroll];
#pragma unroll
    for (int u = 0; u < kForwardUnroll; ++u) rows[u] = next[u];
    if (t + 2 * kForwardUnroll <= end) load_rows(a, slot, t + kForwardUnroll, next);
    forward_tokens(a, slot, t, rows, window);
  }
  for (; t < end; ++t) {
    load_rows(a, slot, t, one);
    forward_tokens(a, slot, t, one, window);
  }
}

// Blocks (slots, runs).
template <class T, int N, int R, int W>
__global__ void __launch_bounds__(kForwardSlots, kForwardBlocks) forward_kernel(const Arguments a, std::int64_t run) {
  const std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= a.channels / (N * R)) return;
  const std::int64_t first = blockIdx.y * run, last = min(first + run, a.tokens);
  const Slot<T, N, R, W> slot(a, index);
  for (std::int64_t t = first, s = sequence_of(a, first); t < last; ++s) {
    const std::int64_t end = min(static_cast<std::int64_t>(a.offsets[s + 1]), last);
    if (t >= end) continue;
    forward_piece(a, slot, s, t, end);
    t = end;
  }
}

template <class T>
void forward(const Arguments& a, cudaStream_t stream) {
  const auto launch = [&]<int N, int W>() {
    const std::int64_t blocks = cuda::divide_up(a.channels / N, kForwardSlots);
    const std::int64_t runs = std::min(cuda::divide_up(a.tokens, kForwardShortest),
                                       std::max<std::int64_t>(1, cuda::multiprocessors() * kForwardBlocks / blocks));
    const std::int64_t run = cuda::divide_up(a.tokens, runs);
    const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(cuda::divide_up(a.tokens, run)));
    forward_kernel<T, N, 1, W><<<grid, kForwardSlots, 0, stream>>>(a, run);
  };
  if (packs_fit<T, 4>(a) && cuda::aligned(a.y)) {
    launch.template operator()<4, 4>();
  } else {
    with_scalars(a, launch);
  }
}

}  // namespace conv_cuda

void cuda_forward(const Arguments& a, void* stream) {
  if (a.tokens == 0) return;
  cuda::with_type(a.type, [&]<class T>() { conv_cuda::forward<T>(a, static_cast<cudaStream_t>(stream)); });
  cuda::check_launch("causal_conv");
}

}  // namespace molt::ops::conv
