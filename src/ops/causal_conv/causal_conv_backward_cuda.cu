// The causal convolution on a GPU, backward, in one pass: what a token's gradient gives to the rows before it is added up on the
// way, over the repeats by threads side by side.
#include "ops/causal_conv/causal_conv_cuda.cuh"

namespace molt::ops::conv {

namespace conv_cuda {

constexpr int kSlots = 32, kRuns = 4;  // of a block, whose runs make one share of the sums over tokens
template <class T>
constexpr int kUnroll = sizeof(T) == 2 ? 8 : 4;  // tokens that a thread reads at once
constexpr int kBlocks = 4;                       // at once on a multiprocessor, as registers allow
constexpr std::int64_t kShortest = 8;            // tokens of a run

// S threads side by side share their columns: repeat / R of them, which 0 leaves to be found out.
template <class T, int N, int R, int S, int W>
struct BackwardThread {
  const Arguments& a;
  const Gradients& to;
  const Slot<T, N, R, W> slot;
  const unsigned together;                              // the threads of this warp that have work
  float weight_sum[R][N][W] = {}, bias_sum[R][N] = {};  // along the run
  Window<N, W> window;
  float pending[W - 1][N];  // row j: the gradient of x at the token j before the next one's last, as far as it is known

  const int sharing;
  const bool writes;  // this one of the threads that share columns

  __device__ BackwardThread(const Arguments& arguments, const Gradients& gradients, std::int64_t index, unsigned warp)
      : a(arguments),
        to(gradients),
        slot(arguments, index),
        together(warp),
        sharing(S > 0 ? S : static_cast<int>(arguments.repeat) / R),
        writes(threadIdx.x % sharing == 0) {}

  // Writes the gradient of x at a token, added up over the threads that share its columns.
  __device__ void write(std::int64_t token, float (&gx)[N]) {
#pragma unroll
    for (int other = 1; other < (S > 0 ? S : sharing); other *= 2) {
#pragma unroll
      for (int i = 0; i < N; ++i) gx[i] += __shfl_xor_sync(together, gx[i], other);
    }
    if (writes) cuda::store(cuda::as<T>(to.x) + token * to.x_stride + slot.column, gx);
  }

  // The gradient of the value before SiLU, from that of y.
  __device__ float before_silu(const float (*rows)[N], int r, int i, float gradient) const {
    const float value = convolve(rows, slot.taps[r][i], slot.bias[r][i], i), slope = cuda::sigmoid(value);
    return a.silu ? gradient * slope * (1.0f + value * (1.0f - slope)) : gradient;  // no branch between one value and the next
  }

  // U tokens from t on. Gradients of tokens from `begin` on are written when they are whole; `count` says whether the tokens are
  // of this run and go into its sums.
  template <int U, bool count>
  __device__ void tokens(std::int64_t t, std::int64_t begin) {
    cuda::Pack<T, N> loaded[U], gy[U][R];
    load_rows(a, slot, t, loaded);
#pragma unroll
    for (int u = 0; u < U; ++u) {
#pragma unroll
      for (int r = 0; r < R; ++r) gy[u][r] = cuda::load<N>(cuda::as<T>(to.y) + (t + u) * a.channels + slot.channel(r));
    }
    float rows[W - 1 + U][N];
    extend(window, loaded, rows);
#pragma unroll
    for (int u = 0; u < U; ++u) {
      float whole[N];
#pragma unroll
      for (int i = 0; i < N; ++i) {
        float gx[W] = {0.0f};  // of tokens t + u - j
#pragma unroll
        for (int j = 1; j < W; ++j) gx[j] = pending[j - 1][i];
#pragma unroll
        for (int r = 0; r < R; ++r) {
          const float gradient = before_silu(rows + u, r, i, gy[u][r][i]);
#pragma unroll
          for (int j = 0; j < W; ++j) gx[j] += slot.taps[r][i][W - 1 - j] * gradient;
          if constexpr (count) {
#pragma unroll
            for (int k = 0; k < W; ++k) weight_sum[r][i][k] += gradient * rows[u + k][i];
            bias_sum[r][i] += gradient;
          }
        }
        whole[i] = gx[W - 1];
#pragma unroll
        for (int j = 0; j < W - 1; ++j) pending[j][i] = gx[j];
      }
      if (t + u - (W - 1) >= begin) write(t + u - (W - 1), whole);
    }
    keep_last(rows, window);
  }

  // Tokens `begin` to `end` of sequence s. The last of them also need the gradients of some that follow.
  __device__ void piece(std::int64_t s, std::int64_t begin, std::int64_t end) {
    look_back<T, N, W>(a, slot.column, s, a.offsets[s], begin, window);
#pragma unroll
    for (int j = 0; j < W - 1; ++j) {
#pragma unroll
      for (int i = 0; i < N; ++i) pending[j][i] = 0.0f;
    }
    std::int64_t t = begin;
    for (; t + kUnroll<T> <= end; t += kUnroll<T>) tokens<kUnroll<T>, true>(t, begin);
    for (; t < end; ++t) tokens<1, true>(t, begin);
    const std::int64_t seen = min(end + W - 1, static_cast<std::int64_t>(a.offsets[s + 1]));
    if (seen == end + W - 1) tokens<W - 1, false>(end, begin), t = seen;
    for (; t < seen; ++t) tokens<1, false>(t, begin);
#pragma unroll
    for (int j = 0; j < W - 1; ++j) {  // where the sequence ends before they are whole otherwise
      const std::int64_t token = seen - 1 - j;
      if (token >= begin && token < end) write(token, pending[j]);
    }
  }

  // Adds up the sums of a block's runs, a channel of each slot a warp, and writes the block's share.
  __device__ void write_share(bool inside) const {
    __shared__ float shared[R * N][kRuns][W + 1][kSlots];
    const int x = threadIdx.x, y = threadIdx.y;
#pragma unroll
    for (int c = 0; c < R * N; ++c) {
#pragma unroll
      for (int k = 0; k < W; ++k) shared[c][y][k][x] = weight_sum[c / N][c % N][k];
      shared[c][y][W][x] = bias_sum[c / N][c % N];
    }
    __syncthreads();
    if (!inside) return;
    for (int c = y; c < R * N; c += kRuns) {
      float sum[W + 1] = {};
#pragma unroll
      for (int run = 0; run < kRuns; ++run) {
#pragma unroll
        for (int k = 0; k <= W; ++k) sum[k] += shared[c][run][k][x];
      }
      const std::int64_t place = blockIdx.y * a.channels + slot.channel(c / N) + c % N;
#pragma unroll
      for (int k = 0; k < W; ++k) cuda::as<float>(to.weight)[place * W + k] = sum[k];
      if (to.bias) cuda::as<float>(to.bias)[place] = sum[W];
    }
  }
};

// Blocks (slots, shares), a warp a run.
template <class T, int N, int R, int S, int W>
__global__ void __launch_bounds__(kSlots* kRuns, kBlocks)
    backward_kernel(const Arguments a, const Gradients to, std::int64_t run) {
  cuda::await_previous();
  cuda::let_next_begin();
  const std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * kSlots + threadIdx.x;
  const bool inside = index < a.channels / (N * R);
  BackwardThread<T, N, R, S, W> thread(a, to, inside ? index : 0, __ballot_sync(0xffffffffu, inside));
  const std::int64_t first = (blockIdx.y * kRuns + threadIdx.y) * run, last = min(first + run, a.tokens);
  if (inside && first < last) {
    for (std::int64_t t = first, s = sequence_of(a, first); t < last; ++s) {
      const std::int64_t end = min(static_cast<std::int64_t>(a.offsets[s + 1]), last);
      if (t >= end) continue;
      thread.piece(s, t, end);
      t = end;
    }
  }
  thread.write_share(inside);
}

// The gradient of the value before SiLU of one channel at one token, plainly.
template <class T>
__device__ float value_gradient(const Arguments& a, const Gradients& to, std::int64_t channel, std::int64_t column,
                                std::int64_t s, std::int64_t t) {
  const float gradient = static_cast<float>(cuda::as<T>(to.y)[t * a.channels + channel]);
  if (!a.silu) return gradient;
  const std::int64_t before = a.width - 1, begin = a.offsets[s];
  float value = cuda::parameter(a.bias, channel, a.weight_type);
  for (std::int64_t k = 0; k <= before; ++k) {
    const std::int64_t source = t - before + k;
    const T x = source >= begin ? cuda::as<T>(a.x)[source * a.x_stride + column]
                                : cuda::as<T>(a.initial_window)[(s * a.columns + column) * before + source - begin + before];
    value += cuda::parameter(a.weight, channel * a.width + k, a.weight_type) * static_cast<float>(x);
  }
  const float slope = cuda::sigmoid(value);
  return gradient * slope * (1.0f + value * (1.0f - slope));
}

// A thread is one column of one sequence's initial window, whose row j is tap k of token j - k.
template <class T>
__global__ void window_kernel(const Arguments a, const Gradients to) {
  const std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= a.sequences * a.columns) return;
  const std::int64_t s = index / a.columns, column = index % a.columns, begin = a.offsets[s], end = a.offsets[s + 1];
  for (std::int64_t j = 0; j + 1 < a.width; ++j) {
    float sum = 0.0f;
    for (std::int64_t r = 0; r < a.repeat; ++r) {
      const std::int64_t channel =
          a.repeat == 1 ? column : (column / a.group_size * a.repeat + r) * a.group_size + column % a.group_size;
      for (std::int64_t k = max(std::int64_t{0}, begin + j - end + 1); k <= j; ++k) {
        const float tap = cuda::parameter(a.weight, channel * a.width + k, a.weight_type);
        sum += tap * value_gradient<T>(a, to, channel, column, s, begin + j - k);
      }
    }
    cuda::as<T>(to.initial_window)[index * (a.width - 1) + j] = static_cast<T>(sum);
  }
}

// Tokens of a run: as many as leave one round of blocks.
std::int64_t run_of(const Arguments& a) {
  const std::int64_t blocks = cuda::divide_up(a.channels / 4, kSlots);
  const std::int64_t parts = std::max<std::int64_t>(1, cuda::multiprocessors() * kBlocks / std::max<std::int64_t>(blocks, 1));
  return std::max(kShortest, cuda::divide_up(a.tokens, parts * kRuns));
}

bool power_of_two(std::int64_t n) {
  return (n & (n - 1)) == 0;
}

template <class T>
void backward(const Arguments& a, const Gradients& to, cudaStream_t stream) {
  const auto launch = [&]<int N, int W, int R = 1, int S = 0>() {
    const std::int64_t blocks = cuda::divide_up(a.channels / (N * R), kSlots);
    const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(to.parts));
    cuda::launch_behind(backward_kernel<T, N, R, S, W>, grid, dim3(kSlots, kRuns), 0, stream, a, to, run_of(a));
  };
  const bool aligned = cuda::aligned(to.y) && cuda::aligned(to.x) && to.x_stride % 4 == 0;
  if (a.repeat == 1 && packs_fit<T, 4>(a) && aligned) {
    launch.template operator()<4, 4, 1, 1>();
  } else if (a.repeat == 2 && packs_fit<T, 2>(a) && aligned) {
    launch.template operator()<2, 4, 2, 1>();
  } else if (a.repeat == 4 && packs_fit<T, 2>(a) && aligned) {
    launch.template operator()<2, 4, 2, 2>();
  } else {
    with_scalars(a, launch);
  }
}

}  // namespace conv_cuda

bool cuda_takes_repeat(const Arguments& a) {
  return a.repeat <= 32 && conv_cuda::power_of_two(a.repeat);
}

std::int64_t cuda_parts(const Arguments& a) {
  return cuda::divide_up(a.tokens, conv_cuda::run_of(a) * conv_cuda::kRuns);
}

void cuda_backward(const Arguments& a, const Gradients& to, void* stream) {
  cuda::with_type(a.type, [&]<class T>() {
    const auto in_order = static_cast<cudaStream_t>(stream);
    if (a.tokens > 0) conv_cuda::backward<T>(a, to, in_order);
    const auto windows = static_cast<unsigned>(cuda::divide_up(a.sequences * a.columns, 128));
    if (to.initial_window && windows > 0) conv_cuda::window_kernel<T><<<windows, 128, 0, in_order>>>(a, to);
  });
  cuda::check_launch("causal_conv_backward");
}

}  // namespace molt::ops::conv
