// One token of a Mamba layer between its projections, in one pass over the states: they are what is read and written (a sequence
// of the published layer has 256 KiB), so each thread holds four states of a few channels in registers, and a warp reads and
// writes long rows.
//
// A column of x serves `repeat` channels; the threads that share it share its window too, which therefore no other thread reads.
// Each of these sharers prepares one of the channels (convolution, step size, gate) and hands the others what they need of it.
#include <algorithm>

#include "ops/cuda_common.cuh"
#include "ops/mamba_update/mamba_update_kernels.h"

namespace molt::ops::mamba {

namespace mamba_cuda {

constexpr int kThreads = 128, kBlocks = 5;                    // of a block; blocks at once on a processor
constexpr int kStates = 4, kChannels = 4, kLargestWidth = 4;  // states and channels of a thread at a time
constexpr float kLog2e = 1.44269504f;
constexpr unsigned kWarp = 0xffffffffu;

using cuda::as;

__device__ float sigmoid(float x) {
  return 1.0f / (1.0f + __expf(-x));
}
__device__ float softplus(float x) {
  return x > 20.0f ? x : log1pf(__expf(x));
}

// Four or eight values that lie beside each other, aligned to their whole.
__device__ void load4(float* to, const float* from) {
  const float4 v = *reinterpret_cast<const float4*>(from);
  to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
}
__device__ void load4(float* to, const __nv_bfloat16* from) {
  const uint2 v = *reinterpret_cast<const uint2*>(from);
  to[0] = __uint_as_float(v.x << 16), to[1] = __uint_as_float(v.x & 0xffff0000u);
  to[2] = __uint_as_float(v.y << 16), to[3] = __uint_as_float(v.y & 0xffff0000u);
}
template <class T>
__device__ float dot8(const T* a, const T* b) {
  float x[8], y[8], sum = 0.0f;
  load4(x, a), load4(x + 4, a + 4), load4(y, b), load4(y + 4, b + 4);
#pragma unroll
  for (int i = 0; i < 8; ++i) sum += x[i] * y[i];
  return sum;
}

// What is the same for every sequence: a thread's column of x, its states, and the channel that it prepares.
template <class T, int kSharers>
struct Thread {
  static constexpr int kOwn = (kChannels + kSharers - 1) / kSharers;  // channels prepared by each sharer

  __device__ Thread(const Arguments& a, int place, int first_repeat, unsigned active_lanes)
      : repeat(static_cast<int>(a.d_inner) / static_cast<int>(a.d_xb)),
        column(place / kSharers),
        share(place % kSharers),
        group(column / static_cast<int>(a.state)),
        first(first_repeat),
        lanes(active_lanes) {
#pragma unroll
    for (int j = 0; j < kChannels; ++j) {
#pragma unroll
      for (int k = 0; k < kStates; ++k) decay[j][k] = 0.0f;
      if (first + j < repeat) load4(decay[j], a.A_log + channel(a, j) * a.state + share * kStates);
#pragma unroll
      for (int k = 0; k < kStates; ++k) decay[j][k] = -expf(decay[j][k]) * kLog2e;
    }
#pragma unroll
    for (int o = 0; o < kOwn; ++o) {
      const int c = channel(a, own(o)), tap_row = a.conv_repeated ? c : column;
      bias[o] = dt_bias[o] = skip[o] = 0.0f;
#pragma unroll
      for (int k = 0; k < kLargestWidth; ++k) taps[o][k] = 0.0f;
      if (!owns(o)) continue;
#pragma unroll
      for (int k = 0; k < kLargestWidth; ++k)
        if (k < a.width) taps[o][k] = static_cast<float>(as<T>(a.conv_weight)[tap_row * a.width + k]);
      if (a.conv_bias) bias[o] = static_cast<float>(as<T>(a.conv_bias)[tap_row]);
      if (a.dt_bias) dt_bias[o] = static_cast<float>(as<T>(a.dt_bias)[c]);
      if (a.D) skip[o] = a.D[c];
    }
  }

  __device__ int own(int o) const { return share + o * kSharers; }
  __device__ bool owns(int o) const { return own(o) < kChannels && first + own(o) < repeat; }
  __device__ int channel(const Arguments& a, int j) const {
    return (group * repeat + first + j - group) * static_cast<int>(a.state) + column;
  }

  int repeat, column, share, group, first;
  unsigned lanes;                   // of the warp that have a column
  float decay[kChannels][kStates];  // -exp(A_log) log2(e)
  float taps[kOwn][kLargestWidth], bias[kOwn], dt_bias[kOwn], skip[kOwn];
};

template <class T>
__device__ float step_size(const Arguments& a, std::int64_t t, int channel, float bias) {
  if (a.dt) return softplus(static_cast<float>(as<T>(a.dt)[t * a.dt_stride + channel]) + bias);
  float sum = bias;
  for (int r = 0; r < a.rank; r += 8)
    sum += dot8(as<T>(a.dt_low) + t * a.low_stride + r, as<T>(a.dt_weight) + channel * a.rank + r);
  return softplus(sum);
}

// The window of a thread's column with the new token behind it; zeros before a sequence's first token.
template <class T>
__device__ void load_window(const Arguments& a, T* rows, const T* window, bool begins, T x) {
#pragma unroll
  for (int k = 0; k < kLargestWidth; ++k) rows[k] = static_cast<T>(0.0f);
#pragma unroll
  for (int k = 0; k + 1 < kLargestWidth; ++k)
    if (k + 1 < a.width && !begins) rows[k] = window[k];
#pragma unroll
  for (int k = 0; k < kLargestWidth; ++k)
    if (k + 1 == a.width) rows[k] = x;
}

// What a thread needs of one sequence's token. All of it is asked for before any is used, and before anything is stored: loads
// behind a store to memory that might be theirs would wait for their turn, a trip to memory each.
template <class T, int kSharers>
struct Token {
  static constexpr int kOwn = Thread<T, kSharers>::kOwn;

  __device__ Token(const Arguments& a, const Thread<T, kSharers>& p, std::int64_t row, std::int64_t its_slot)
      : t(row), slot(its_slot) {
    const bool begins = a.contexts[t] == 0;
#pragma unroll
    for (int j = 0; j < kChannels; ++j)
      if (p.first + j < p.repeat) {
        C[j] =
            cuda::load<kStates>(as<T>(a.C) + t * a.C_stride + (p.group * p.repeat + p.first + j) * a.state + p.share * kStates);
        if (!begins) h[j] = cuda::load<kStates>(states_of(a, p, j));
      }
    B = cuda::load<kStates>(as<T>(a.B) + t * a.B_stride + p.group * a.state + p.share * kStates);
    load_window(a, rows, window_of(a, p), begins, as<T>(a.x)[t * a.x_stride + p.column]);
#pragma unroll
    for (int o = 0; o < kOwn; ++o)
      if (p.owns(o) && a.z) z[o] = as<T>(a.z)[t * a.z_stride + p.channel(a, p.own(o))];
#pragma unroll
    for (int o = 0; o < kOwn; ++o) dt[o] = p.owns(o) ? step_size<T>(a, t, p.channel(a, p.own(o)), p.dt_bias[o]) : 0.0f;
  }

  __device__ float* states_of(const Arguments& a, const Thread<T, kSharers>& p, int j) const {
    return a.states + (slot * a.d_inner + p.channel(a, j)) * a.state + p.share * kStates;
  }
  __device__ T* window_of(const Arguments& a, const Thread<T, kSharers>& p) const {
    return as<T>(a.windows) + (slot * a.d_xb + p.column) * (a.width - 1);
  }

  std::int64_t t, slot;
  cuda::Pack<float, kStates> h[kChannels] = {};
  cuda::Pack<T, kStates> C[kChannels] = {}, B;
  T rows[kLargestWidth];
  T z[kOwn];
  float dt[kOwn];
};

// The window moves on with the last pass over the channels that read it.
template <class T, int kSharers>
__device__ void advance(const Arguments& a, const Thread<T, kSharers>& p, const Token<T, kSharers>& token, bool last_pass) {
  constexpr int kOwn = Thread<T, kSharers>::kOwn;
  float x[kOwn], y[kOwn] = {};
#pragma unroll
  for (int o = 0; o < kOwn; ++o) {
    float value = p.bias[o];
#pragma unroll
    for (int k = 0; k < kLargestWidth; ++k) value += p.taps[o][k] * static_cast<float>(token.rows[k]);
    x[o] = a.silu ? value * sigmoid(value) : value;
  }

  const int leader = static_cast<int>(threadIdx.x) % 32 - p.share;
#pragma unroll
  for (int j = 0; j < kChannels; ++j) {
    const float step = __shfl_sync(p.lanes, token.dt[j / kSharers], leader + j % kSharers);
    const float u = step * __shfl_sync(p.lanes, x[j / kSharers], leader + j % kSharers);
    float sum = 0.0f, h[kStates];
#pragma unroll
    for (int k = 0; k < kStates; ++k) {
      h[k] = exp2f(step * p.decay[j][k]) * token.h[j][k] + u * token.B[k];
      sum += h[k] * token.C[j][k];
    }
    if (p.first + j < p.repeat) cuda::store(token.states_of(a, p, j), h);
#pragma unroll
    for (int other = 1; other < kSharers; other *= 2) sum += __shfl_xor_sync(p.lanes, sum, other);
    if (j % kSharers == p.share) y[j / kSharers] = sum;
  }
#pragma unroll
  for (int o = 0; o < kOwn; ++o) {
    if (!p.owns(o)) continue;
    float value = y[o] + p.skip[o] * x[o];
    if (a.z) value *= static_cast<float>(token.z[o]) * sigmoid(static_cast<float>(token.z[o]));
    as<T>(a.y)[token.t * a.d_inner + p.channel(a, p.own(o))] = static_cast<T>(value);
  }
  __syncwarp(p.lanes);
  if (last_pass && p.share == 0) {
    T* const window = token.window_of(a, p);
#pragma unroll
    for (int k = 0; k + 1 < kLargestWidth; ++k)
      if (k + 1 < a.width) window[k] = token.rows[k + 1];
  }
}

// A row of blocks has every column's threads; rows of the grid take every gridDim.y-th sequence each.
template <class T, int kSharers>
__global__ void __launch_bounds__(kThreads, kBlocks) update_kernel(const Arguments a) {
  const int place = static_cast<int>(blockIdx.x * kThreads + threadIdx.x), repeat = static_cast<int>(a.d_inner / a.d_xb);
  const unsigned lanes = __ballot_sync(kWarp, place < a.d_xb * kSharers);
  if (place >= a.d_xb * kSharers) return;
  for (int first = 0; first < repeat; first += kChannels) {
    const Thread<T, kSharers> p(a, place, first, lanes);
    std::int64_t slot = blockIdx.y < a.tokens ? a.slots[blockIdx.y] : -1;
    for (std::int64_t t = blockIdx.y; t < a.tokens; t += gridDim.y) {
      const std::int64_t next = t + gridDim.y < a.tokens ? a.slots[t + gridDim.y] : -1;
      if (slot >= 0) {
        advance(a, p, Token<T, kSharers>(a, p, t, slot), first + kChannels >= repeat);
      } else {
        for (int o = 0; o < Thread<T, kSharers>::kOwn; ++o)
          if (p.owns(o)) as<T>(a.y)[t * a.d_inner + p.channel(a, p.own(o))] = static_cast<T>(0.0f);
      }
      slot = next;
    }
  }
}

template <class T>
void launch(const Arguments& a, cudaStream_t stream) {
  const auto with = [&]<int kSharers>() {
    const auto columns = static_cast<unsigned>((a.d_xb * kSharers + kThreads - 1) / kThreads);
    // As many blocks as run at once: further sequences follow one another in them and share what is read once.
    constexpr unsigned kMostBlocks = 640;
    const unsigned rows = std::clamp<unsigned>(kMostBlocks / columns, 1, static_cast<unsigned>(a.tokens));
    update_kernel<T, kSharers><<<dim3(columns, rows), kThreads, 0, stream>>>(a);
  };
  switch (a.state) {
    case 8:
      return with.template operator()<2>();
    case 16:
      return with.template operator()<4>();
    case 32:
      return with.template operator()<8>();
    default:
      return with.template operator()<16>();
  }
}

}  // namespace mamba_cuda

void cuda_update(const Arguments& a, void* stream) {
  if (a.tokens == 0) return;
  a.bfloat16 ? mamba_cuda::launch<__nv_bfloat16>(a, static_cast<cudaStream_t>(stream))
             : mamba_cuda::launch<float>(a, static_cast<cudaStream_t>(stream));
  cuda::check_launch("mamba_update");
}

}  // namespace molt::ops::mamba
