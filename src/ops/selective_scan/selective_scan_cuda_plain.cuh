// What the plain kernels of the scan share, for states of any size: a block is one group of channels, four threads share a
// channel's states in registers.
#pragma once
#include "ops/selective_scan/selective_scan_cuda.cuh"

namespace molt::ops::scan::scan_plain {

using namespace scan_cuda;

constexpr int kSharers = 4;  // threads that share a channel
// Over the threads that share a channel.
__device__ inline float sum_shared(float value) {
  value += __shfl_xor_sync(kWarp, value, 1);
  return value + __shfl_xor_sync(kWarp, value, 2);
}

// A thread's channel and states. Threads behind the last channel work on zeros and write nothing.
template <int kStates>
struct Place {
  __device__ Place(const Arguments& a, std::int64_t group)
      : state(static_cast<int>(a.state)),
        inner(threadIdx.x / kSharers),
        first(threadIdx.x % kSharers * kStates),
        active(inner < state),
        leader(active && first == 0),
        channel(group * state + (active ? inner : 0)),
        x_column(a.x_columns == a.d_inner ? channel : B_group(a, group) * state + (active ? inner : 0)),
        B_column(B_group(a, group) * state),
        C_column(group * state) {}
  __device__ static std::int64_t B_group(const Arguments& a, std::int64_t group) { return group / (a.d_inner / a.d_xb); }
  __device__ bool has(int k) const { return active && first + k < state; }

  int state, inner, first;  // size; the channel's number in its group; the first state of this thread
  bool active, leader;      // leader: the one of the sharers that writes what they have in common
  std::int64_t channel, x_column, B_column, C_column;
};

// What a thread reads of a token.
template <class T, int kStates>
struct Token {
  float raw, x, B[kStates], C[kStates];  // raw: dt with its bias, before the softplus

  __device__ void load(const Arguments& a, const Place<kStates>& p, std::int64_t t, float bias) {
    raw = static_cast<float>(as<T>(a.dt)[t * a.dt_stride + p.channel]) + bias;
    x = p.active ? static_cast<float>(as<T>(a.x)[t * a.x_stride + p.x_column]) : 0.0f;
#pragma unroll
    for (int k = 0; k < kStates; ++k) {
      B[k] = p.has(k) ? static_cast<float>(as<T>(a.B)[t * a.B_stride + p.B_column + p.first + k]) : 0.0f;
      C[k] = p.has(k) ? static_cast<float>(as<T>(a.C)[t * a.C_stride + p.C_column + p.first + k]) : 0.0f;
    }
  }
};

// `from` and `to` are (…, d_inner, state); null reads as zeros.
template <int kStates>
__device__ void load_states(float* h, const Place<kStates>& p, const void* from, std::int64_t row, const Arguments& a) {
#pragma unroll
  for (int k = 0; k < kStates; ++k) {
    h[k] = from && p.has(k) ? as<float>(from)[(row * a.d_inner + p.channel) * a.state + p.first + k] : 0.0f;
  }
}
template <int kStates>
__device__ void store_states(void* to, const float* h, const Place<kStates>& p, std::int64_t row, const Arguments& a) {
#pragma unroll
  for (int k = 0; k < kStates; ++k) {
    if (p.has(k)) as<float>(to)[(row * a.d_inner + p.channel) * a.state + p.first + k] = h[k];
  }
}

// -exp(A_log) * log2(e)
template <int kStates>
__device__ void load_decays(float* A, const Place<kStates>& p, const Arguments& a) {
  load_states(A, p, a.A_log, 0, a);
#pragma unroll
  for (int k = 0; k < kStates; ++k) A[k] = -expf(A[k]) * kLog2e;
}

// Moves the state on by one token and gives y before skip and gate.
template <class T, int kStates>
__device__ float advance(float* h, const float* A, const Token<T, kStates>& token) {
  const float dt = softplus(token.raw), u = dt * token.x;
  float y = 0.0f;
#pragma unroll
  for (int k = 0; k < kStates; ++k) {
    h[k] = exp2_fast(dt * A[k]) * h[k] + u * token.B[k];
    y += h[k] * token.C[k];
  }
  return sum_shared(y);
}

template <class T, int kStates>
__device__ void store_output(const Arguments& a, const Place<kStates>& p, std::int64_t t, float y) {
  if (!p.leader) return;
  if (a.z) {
    const float z = static_cast<float>(as<T>(a.z)[t * a.z_stride + p.channel]);
    y *= z * sigmoid(z);
  }
  as<T>(a.y)[t * a.d_inner + p.channel] = static_cast<T>(y);
}

// The most threads that a block has with these states a thread.
template <int kStates>
constexpr int kMostThreads = kStates * kSharers * kSharers < 32 ? 32 : kStates * kSharers * kSharers;

// Calls launch.template operator()<T, kStates>() for the type and the least states a thread that are enough.
template <class T, class Launch>
void choose_states(const Arguments& a, const Launch& launch) {
  const std::int64_t states = (a.state + kSharers - 1) / kSharers;
  if (states <= 1) return launch.template operator()<T, 1>();
  if (states <= 2) return launch.template operator()<T, 2>();
  if (states <= 4) return launch.template operator()<T, 4>();
  if (states <= 8) return launch.template operator()<T, 8>();
  if (states <= 16) return launch.template operator()<T, 16>();
  launch.template operator()<T, 32>();
}

// One block for each of `rows` (sequences or tokens) and each group.
template <class Launch>
void launch_blocks(const Arguments& a, std::int64_t rows, const Launch& launch) {
  const std::int64_t blocks = rows * (a.d_inner / a.state);
  if (blocks == 0) return;
  const auto launch_typed = [&]<class T, int kStates>() {
    const int threads = static_cast<int>((a.state * kSharers + 31) / 32 * 32);
    launch.template operator()<T, kStates>(static_cast<unsigned>(blocks), threads);
  };
  if (a.type == DataType::bfloat16) {
    choose_states<__nv_bfloat16>(a, launch_typed);
  } else {
    choose_states<float>(a, launch_typed);
  }
}

}  // namespace molt::ops::scan::scan_plain
