// The selective scan on a GPU for states of any size but the one that has tuned kernels: a block is one group of channels of one
// sequence, four threads share a channel's states in registers and walk along the tokens. Each token's rows are read once and a
// chunk's states are computed again for the backward pass; sums over the channels of a group go through shuffles and shared
// memory in a fixed order, so that results repeat bit for bit.
#include "ops/selective_scan/selective_scan_cuda_plain.cuh"

namespace molt::ops::scan {

namespace scan_plain {

template <class T, int kStates>
__global__ void __launch_bounds__(kMostThreads<kStates>) forward_kernel(const Arguments a) {
  const std::int64_t groups = a.d_inner / a.state, sequence = blockIdx.x / groups;
  const Place<kStates> p(a, blockIdx.x % groups);
  const std::int64_t begin = a.offsets[sequence], end = a.offsets[sequence + 1];
  const float bias = cuda::parameter(a.dt_bias, p.channel, a.dt_bias_type), D = cuda::parameter(a.D, p.channel);
  float A[kStates], h[kStates];
  load_decays(A, p, a);
  load_states(h, p, a.initial_state, sequence, a);
  std::int64_t wanted = 0;
  while (wanted < a.position_count && a.positions[wanted] < begin) ++wanted;

  Token<T, kStates> next;
  if (begin < end) next.load(a, p, begin, bias);
  for (std::int64_t t = begin; t < end; ++t) {
    const Token<T, kStates> token = next;
    if (t + 1 < end) next.load(a, p, t + 1, bias);
    if (a.kept && (t - begin) % kChunk == 0) store_states(a.kept, h, p, begin / kChunk + sequence + (t - begin) / kChunk, a);
    const float y = advance(h, A, token);
    store_output<T>(a, p, t, y + D * token.x);
    if (wanted < a.position_count && a.positions[wanted] == t) store_states(a.states, h, p, wanted++, a);
  }
  if (a.final_state) store_states(a.final_state, h, p, sequence, a);
}

// One group's share of a gradient of x or B, (shares, tokens, d_xb), or the whole of it.
template <class T, int kStates>
__device__ void store_share(void* to, std::int64_t stride, std::int64_t shares, const Arguments& a, const Place<kStates>& p,
                            std::int64_t t, std::int64_t column, float value) {
  if (shares == 1) {
    as<T>(to)[t * stride + column] = static_cast<T>(value);
  } else {
    as<float>(to)[(p.C_column / a.state % shares * a.tokens + t) * stride + column] = value;
  }
}

// The sums over a group's channels of each thread's products for B and C, written to their rows. `shared` holds two rounds of
// (2, warps, kSharers * kStates), used in turns so that one barrier a token is enough.
template <class T, int kStates>
__device__ void store_sums(const Arguments& a, const Gradients& to, const Place<kStates>& p, std::int64_t t, float* shared,
                           float* B, float* C) {
  constexpr int kRow = kSharers * kStates;
  const int warps = blockDim.x / 32, warp = threadIdx.x / 32;
  float* round = shared + t % 2 * 2 * warps * kRow;
#pragma unroll
  for (int k = 0; k < kStates; ++k) {
#pragma unroll
    for (int other = kSharers; other < 32; other *= 2) {
      B[k] += __shfl_xor_sync(kWarp, B[k], other);
      C[k] += __shfl_xor_sync(kWarp, C[k], other);
    }
    if (threadIdx.x % 32 < kSharers) {
      round[warp * kRow + p.first + k] = B[k];
      round[(warps + warp) * kRow + p.first + k] = C[k];
    }
  }
  __syncthreads();
  const int which = threadIdx.x / p.state, n = threadIdx.x % p.state;  // 0: B, 1: C
  if (which > 1) return;
  float sum = 0.0f;
  for (int w = 0; w < warps; ++w) sum += round[(which * warps + w) * kRow + n];
  if (which == 0) {
    store_share<T>(to.B, to.B_stride, to.B_shares, a, p, t, p.B_column + n, sum);
  } else {
    as<T>(to.C)[t * to.C_stride + p.C_column + n] = static_cast<T>(sum);
  }
}

template <class T, int kStates>
__global__ void __launch_bounds__(kMostThreads<kStates>) backward_kernel(const Arguments a, const Gradients to) {
  extern __shared__ float shared[];
  const std::int64_t groups = a.d_inner / a.state, sequence = blockIdx.x / groups;
  const Place<kStates> p(a, blockIdx.x % groups);
  const std::int64_t begin = a.offsets[sequence], length = a.offsets[sequence + 1] - begin;
  const float bias = cuda::parameter(a.dt_bias, p.channel, a.dt_bias_type), D = cuda::parameter(a.D, p.channel);
  float A[kStates], g[kStates], gA[kStates] = {}, gbias = 0.0f, gD = 0.0f;
  load_decays(A, p, a);
  load_states(g, p, to.final_state, sequence, a);

  float before[kChunk][kStates];  // the state before each token of a chunk, in the thread's local memory
  Token<T, kStates> token;
  for (std::int64_t chunk = (length + kChunk - 1) / kChunk - 1; chunk >= 0; --chunk) {
    const std::int64_t start = begin + chunk * kChunk;
    const int count = static_cast<int>(min(kChunk, length - chunk * kChunk));
    float h[kStates];
    load_states(h, p, a.kept, begin / kChunk + sequence + chunk, a);
    for (int j = 0; j < count; ++j) {
#pragma unroll
      for (int k = 0; k < kStates; ++k) before[j][k] = h[k];
      token.load(a, p, start + j, bias);
      advance(h, A, token);
    }
    for (int j = count - 1; j >= 0; --j) {
      const std::int64_t t = start + j, place = t * a.d_inner + p.channel;
      token.load(a, p, t, bias);
      const float dt = softplus(token.raw), u = dt * token.x;
      const float out = p.active && to.y ? static_cast<float>(as<T>(to.y)[place]) : 0.0f;
      const float z = a.z ? static_cast<float>(as<T>(a.z)[t * a.z_stride + p.channel]) : 0.0f, gate = sigmoid(z);
      const float gy = a.z ? out * z * gate : out;
      float y = 0.0f, gu = 0.0f, gdt = 0.0f, gB[kStates], gC[kStates];
#pragma unroll
      for (int k = 0; k < kStates; ++k) {
        const float decay = exp2_fast(dt * A[k]), after = decay * before[j][k] + u * token.B[k];
        y += after * token.C[k];
        g[k] += gy * token.C[k];
        gC[k] = gy * after;
        gB[k] = g[k] * u;
        gu += g[k] * token.B[k];
        g[k] *= decay;
        const float q = g[k] * before[j][k];
        gdt += q * A[k];
        gA[k] += q * dt;
      }
      y = sum_shared(y);
      gu = sum_shared(gu);
      gdt = (token.x * gu + sum_shared(gdt) * kLn2) * sigmoid(token.raw);
      gbias += gdt;
      gD += gy * token.x;
      if (p.leader) {
        if (a.x_columns == a.d_inner) {
          as<T>(to.x)[place] = static_cast<T>(dt * gu + D * gy);
        } else {
          store_share<T>(to.x, a.x_columns, to.x_shares, a, p, t, p.x_column, dt * gu + D * gy);
        }
        as<T>(to.dt)[place] = static_cast<T>(gdt);
        if (to.z)
          as<T>(to.z)[t * to.z_stride + p.channel] = static_cast<T>(out * (y + D * token.x) * gate * (1.0f + z * (1.0f - gate)));
      }
      store_sums<T>(a, to, p, t, shared, gB, gC);
    }
  }

  if (to.initial_state) store_states(to.initial_state, g, p, sequence, a);
#pragma unroll
  for (int k = 0; k < kStates; ++k) gA[k] *= A[k] * kLn2;
  store_states(to.A_log, gA, p, sequence, a);
  if (p.leader && to.dt_bias) as<float>(to.dt_bias)[sequence * a.d_inner + p.channel] = gbias;
  if (p.leader && to.D) as<float>(to.D)[sequence * a.d_inner + p.channel] = gD;
}

}  // namespace scan_plain

namespace scan_cuda {

void plain_forward(const Arguments& a, cudaStream_t stream) {
  scan_plain::launch_blocks(a, a.sequences, [&]<class T, int kStates>(unsigned blocks, int threads) {
    scan_plain::forward_kernel<T, kStates><<<blocks, threads, 0, stream>>>(a);
  });
}

BackwardRoom plain_backward_room(const Arguments& a) {
  return {.x_shares = a.d_inner / a.x_columns, .B_shares = a.d_inner / a.d_xb, .parts = a.sequences, .scratch = 0};
}

void plain_backward(const Arguments& a, const Gradients& gradients, cudaStream_t stream) {
  scan_plain::launch_blocks(a, a.sequences, [&]<class T, int kStates>(unsigned blocks, int threads) {
    const std::size_t bytes = sizeof(float) * 2 * 2 * (threads / 32) * scan_plain::kSharers * kStates;
    scan_plain::backward_kernel<T, kStates><<<blocks, threads, bytes, stream>>>(a, gradients);
  });
}

}  // namespace scan_cuda

}  // namespace molt::ops::scan
