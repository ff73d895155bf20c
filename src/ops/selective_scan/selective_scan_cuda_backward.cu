// Gradients of the scan. A block has up to four groups of channels that share rows of B, and walks backwards along one span in
// chunks of 64 tokens: from the state that the forward pass kept it computes the state at every eighth token into shared memory,
// then, eight tokens at a time, all states into registers, and then goes back along those eight with the gradient of the state.
//
// The sums over channels that the gradients of B and C are go through the tensor cores: a row of ones for each token sums the
// products of four lanes, eight tokens to a matrix. Products of float32 tokens are split in two so that no bits are lost.
#include "ops/selective_scan/selective_scan_cuda_backward.cuh"

namespace molt::ops::scan {

namespace scan_adjoint {

// A thread as one of those that read a token's row together, two channels each, and write its gradients. What it reads is copied
// into its own places of shared memory while the step before is on.
template <class T, int kTogether>
struct Edge {
  using Two = Packed<T, 2>;
  static constexpr int kLanes = kChannels / 2;
  enum { kOut, kZ, kC, kX };  // kOut: the gradient of y

  const Job& job;
  const Part<kTogether>& part;
  Shared<T>& shared;

  // The thread's token of kStep, and the first of its channels in the block and in all.
  struct Seat {
    int thread = thread_number(), token = thread / kLanes, local = thread % kLanes * 2, channel = 0, x_column = 0;
    bool active = false;
  };
  __device__ Seat seat() const {
    Seat s;
    s.active = s.local < part.channels;
    const int inner = s.active ? s.local : 0;
    s.channel = part.first * kState + inner;
    s.x_column = column(inner);
    return s;
  }

  __device__ Edge(const Job& job, const Part<kTogether>& part, Shared<T>& shared) : job(job), part(part), shared(shared) {
    const Seat s = seat();
    for (int i = 0; i < 2; ++i) shared.D[s.local + i] = job.a.D ? as<float>(job.a.D)[s.channel + i] : 0.0f;
    shared.totals[s.thread] = {0.0f, 0.0f, 0.0f, 0.0f};
  }

  // Of x, for channel `inner` of the block.
  __device__ int column(int inner) const {
    return job.a.x_columns == job.a.d_inner ? part.first * kState + inner : part.B_column + part.row(inner) + inner % kState;
  }

  // dt, x and B of a tile. Rows past the end leave states as they are.
  __device__ void stage_tile(int begin, int count) const {
    constexpr int kVector = 4, kAcross = kChannels / kVector, kRows = kThreads / kAcross, kRounds = kTokens / kRows;
    const Inputs& in = job.in;
    const int first = threadIdx.x / kAcross, at = threadIdx.x % kAcross * kVector;
    const int inner = at < part.channels ? at : 0, own = part.first * kState + inner, own_x = column(inner);
    const int B_at = at < part.columns ? at : 0;
    float bias[kVector];
#pragma unroll
    for (int i = 0; i < kVector; ++i) bias[i] = job.a.dt_bias ? as<float>(job.a.dt_bias)[own + i] : 0.0f;
#pragma unroll
    for (int half = 0; half < kRounds; half += kRounds / 2) {
      Packed<T, kVector> dt[kRounds / 2], x[kRounds / 2], B[kRounds / 2];
#pragma unroll
      for (int r = 0; r < kRounds / 2; ++r) {
        const int j = min(first + (half + r) * kRows, count - 1);
        dt[r] = in.dt.read<T, kVector>(begin, j, own);
        x[r] = in.x.read<T, kVector>(begin, j, own_x);
        B[r] = in.B.read<T, kVector>(begin, j, part.B_column + B_at);
      }
#pragma unroll
      for (int r = 0; r < kRounds / 2; ++r) {
        const int j = first + (half + r) * kRows;
        const bool inside = at < part.channels && j < count;
        float2 step[kVector];
#pragma unroll
        for (int i = 0; i < kVector; ++i) {
          const float value = softplus(dt[r][i] + bias[i]), drive = value * x[r][i];
          step[i] = {inside ? value : 0.0f, inside ? drive : 0.0f};
        }
        float4* to = reinterpret_cast<float4*>(&shared.step[j][at]);
        to[0] = {step[0].x, step[0].y, step[1].x, step[1].y};
        to[1] = {step[2].x, step[2].y, step[3].x, step[3].y};
        *reinterpret_cast<float4*>(&shared.B[j][at]) = B[r].wide();
      }
    }
  }

  __device__ void copy(const Seat& s, int which, int step, const Rows& from, int begin, int j, int column) {
    const T* source = from.at<T>(begin, j, column);
    const auto target = static_cast<unsigned>(__cvta_generic_to_shared(&shared.raw[step & 1][which][s.thread]));
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(target), "l"(source), "n"(sizeof(Two)) : "memory");
  }
  // Of the step of that number, which begins at token `begin` of the pack and has `count` tokens.
  __device__ void fetch(int begin, int count, int step) {
    const Seat s = seat();
    const int j = min(s.token, count - 1);
    copy(s, kOut, step, job.in.y_gradient, begin, j, s.channel);
    copy(s, kZ, step, job.in.z, begin, j, s.channel);
    copy(s, kC, step, job.in.C, begin, j, s.channel);
    copy(s, kX, step, job.in.x, begin, j, s.x_column);
    asm volatile("cp.async.commit_group;" ::: "memory");
  }

  // The rows of a step, of which `count` are there, for the walk back; others add nothing.
  __device__ void stage(int step, int count) const {
    asm volatile("cp.async.wait_group 0;" ::: "memory");
    const Seat s = seat();
    const auto& raw = shared.raw[step & 1];
    const bool valid = s.token < count && s.active && job.in.driven;
    const Two out = raw[kOut][s.thread], z = raw[kZ][s.thread], C = raw[kC][s.thread];
    float2 gy = {valid ? out[0] : 0.0f, valid ? out[1] : 0.0f};
    if (job.in.gated) gy.x *= z[0] * sigmoid(z[0]), gy.y *= z[1] * sigmoid(z[1]);
    *reinterpret_cast<float2*>(&shared.gy[s.token][s.local]) = gy;
    *reinterpret_cast<float2*>(&shared.C[s.token][s.local]) = {C[0], C[1]};
  }

  __device__ static void write(const Rows& to, int begin, int j, int column, float2 value) {
    to.write(begin, j, column, Two::of({value.x, value.y}));
  }
  // One share of a sum over blocks, or the whole of it.
  __device__ void write_share(const Rows& to, std::int64_t shares, int begin, int j, int column, float2 sum) const {
    if (shares == 1) return write(to, begin, j, column, sum);
    const std::int64_t row = part.share * job.a.tokens + begin + j;
    *reinterpret_cast<float2*>(as<float>(const_cast<void*>(to.data)) + row * to.stride + column) = sum;
  }

  __device__ static float2 pair(const Seat& s, const float (&rows)[kStep][kPadded]) {
    return *reinterpret_cast<const float2*>(&rows[s.token][s.local]);
  }
  // Of the group's two warps: sums for B (0) or C (1).
  __device__ float2 group_sum(const Seat& s, int which) const {
    const int warp = s.local / kState * 2, n = which * kState + s.local % kState;
    const float2 low = *reinterpret_cast<const float2*>(&shared.sums[warp][s.token][n]),
                 high = *reinterpret_cast<const float2*>(&shared.sums[warp + 1][s.token][n]);
    return {(low.x + high.x) * kCentred<T>, (low.y + high.y) * kCentred<T>};
  }

  // The gradients of a step that begins at row `first` of the tile and at token `begin` of the pack, of which `count` are there.
  __device__ void finish(int begin, int count, int first, int step) {
    const Seat s = seat();
    const auto& raw = shared.raw[step & 1];
    const Two x = raw[kX][s.thread];
    const float2 gu = pair(s, shared.gu), gdecay = pair(s, shared.gdt);
    const float2 gy = *reinterpret_cast<const float2*>(&shared.gy[s.token][s.local]),
                 D = *reinterpret_cast<const float2*>(&shared.D[s.local]);
    const float4 steps = *reinterpret_cast<const float4*>(&shared.step[first + s.token][s.local]);
    const float2 gdt = {(x[0] * gu.x + gdecay.x * kLn2) * softplus_slope(steps.x),
                        (x[1] * gu.y + gdecay.y * kLn2) * softplus_slope(steps.z)};
    const float2 gx = {steps.x * gu.x + D.x * gy.x, steps.z * gu.y + D.y * gy.y}, gC = group_sum(s, 1);
    const bool writes = s.token < count && s.active;
    if (writes) {
      float4& total = shared.totals[s.thread];
      total = {total.x + gdt.x, total.y + gdt.y, total.z + gy.x * x[0], total.w + gy.y * x[1]};
      write(job.gdt, begin, s.token, s.channel, gdt);
      write(job.gC, begin, s.token, s.channel, gC);
      if (job.a.x_columns == job.a.d_inner) write(job.gx, begin, s.token, s.channel, gx);
      if (job.to.z) write(job.gz, begin, s.token, s.channel, gate_gradient(s, step, x, D));
    }
    const bool heads = writes && s.local / kState % kTogether == 0;
    if (job.a.x_columns != job.a.d_inner) {
      const float2 sum = {sum_groups<kTogether>(gx.x), sum_groups<kTogether>(gx.y)};
      if (heads) write_share(job.gx, job.to.x_shares, begin, s.token, s.x_column, sum);
    }
    const float2 own = group_sum(s, 0), sum = {sum_groups<kTogether>(own.x), sum_groups<kTogether>(own.y)};
    const int B_column = part.B_column + part.row(s.local) + s.local % kState;
    if (heads) write_share(job.gB, job.to.B_shares, begin, s.token, B_column, sum);
  }

  __device__ float2 gate_gradient(const Seat& s, int step, const Two& x, float2 D) const {
    const auto& raw = shared.raw[step & 1];
    const Two out = raw[kOut][s.thread], z = raw[kZ][s.thread];
    const float2 y = pair(s, shared.y);
    const float first = sigmoid(z[0]), second = sigmoid(z[1]);
    const float2 result = {out[0] * (y.x + D.x * x[0]) * first * (1.0f + z[0] * (1.0f - first)),
                           out[1] * (y.y + D.y * x[1]) * second * (1.0f + z[1] * (1.0f - second))};
    return job.in.driven ? result : float2{0.0f, 0.0f};
  }

  // The span's share of what is summed over tokens. All threads of the block take part.
  __device__ void finish_sums(int span) {
    __syncthreads();
    const int inner = threadIdx.x;
    if (inner >= part.channels) return;
    float bias_sum = 0.0f, D_sum = 0.0f;
    for (int j = 0; j < kStep; ++j) {
      const float4 total = shared.totals[j * kLanes + inner / 2];
      bias_sum += inner % 2 ? total.y : total.x;
      D_sum += inner % 2 ? total.w : total.z;
    }
    const std::int64_t place = std::int64_t{span} * job.a.d_inner + part.first * kState + inner;
    if (job.to.dt_bias) as<float>(job.to.dt_bias)[place] = bias_sum;
    if (job.to.D) as<float>(job.to.D)[place] = D_sum;
  }
};

template <class T, int kTogether>
__device__ void go_back(const Job& job, const Span& span, Adjoint<T, kTogether>& adjoint, Edge<T, kTogether>& edge, int channel) {
  const int length = span.end - span.begin, first_state = Lane<kTogether>().quarter * kEach;
  int step = (length - 1) / kStep;  // of the span, counted from its begin
  edge.fetch(span.begin + step * kStep, length - step * kStep, step);
  for (int tile = (length - 1) / kTokens; tile >= 0; --tile) {
    const int begin = span.begin + tile * kTokens, count = min(span.end - begin, kTokens);
    const int kept = span.start / kTokens + span.sequence + (begin - span.start) / kTokens;
    float state[kEach];
    load_state(state, job.a.kept, kept, job.a.d_inner, channel, first_state);
    __syncthreads();
    edge.stage_tile(begin, count);
    __syncthreads();
    adjoint.find_states(state, count);
    for (; step >= tile * (kTokens / kStep); --step) {
      const int first = step * kStep - tile * kTokens;
      edge.stage(step, count - first);
      __syncthreads();
      if (step > 0) edge.fetch(begin + first - kStep, kStep, step - 1);
      adjoint.go_back(first);
      __syncthreads();
      edge.finish(begin + first, count - first, first, step);
    }
  }
}

template <class T, int kTogether>
__global__ void __launch_bounds__(kThreads, 2) backward_kernel(const Job job) {
  extern __shared__ float4 bytes[];
  auto& shared = *reinterpret_cast<Shared<T>*>(bytes);
  const Arguments& a = job.a;
  const Span span(a, blockIdx.x / job.split.blocks, job.length);
  const Part<kTogether> part(job, blockIdx.x % job.split.blocks);
  Adjoint<T, kTogether> adjoint(shared);
  Edge<T, kTogether> edge(job, part, shared);
  const Lane<kTogether> lane;
  const bool active = lane.channel < part.channels;
  const int channel = part.first * kState + (active ? lane.channel : 0), first = lane.quarter * kEach;
  load_decay(adjoint.A, a, channel, first);
  if (span.exists) {
    load_state(adjoint.g, job.to.final_state, span.sequence, a.d_inner, channel, first);
    carry<true>(adjoint.g, adjoint.A, job.ends, span, a.d_inner, channel, first);
    if (span.end > span.begin) go_back(job, span, adjoint, edge, channel);
  }
  if (active) {
    if (job.to.initial_state && span.exists && span.number == span.first)
      store_state(job.to.initial_state, adjoint.g, span.sequence, a.d_inner, channel, first);
#pragma unroll
    for (int k = 0; k < kEach; ++k) adjoint.gA[k] *= adjoint.A[k] * kLn2;
    store_state(job.to.A_log, adjoint.gA, span.number, a.d_inner, channel, first);
  }
  edge.finish_sums(span.number);
}

template <class T, int kTogether>
void launch(const Job& job, cudaStream_t stream) {
  const std::int64_t blocks = job.split.blocks * span_count(job.a, job.length);
  if (blocks == 0) return;
  constexpr int kBytes = static_cast<int>(sizeof(Shared<T>));
  cudaFuncSetAttribute(backward_kernel<T, kTogether>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  backward_kernel<T, kTogether><<<static_cast<unsigned>(blocks), kThreads, kBytes, stream>>>(job);
}
template <class T>
void launch(const Job& job, cudaStream_t stream) {
  switch (job.split.together) {
    case 1:
      return launch<T, 1>(job, stream);
    case 2:
      return launch<T, 2>(job, stream);
    case 3:
      return launch<T, 3>(job, stream);
    default:
      return launch<T, kGroups>(job, stream);
  }
}

// Two blocks on each multiprocessor of a large GPU.
std::int64_t length_of_spans(const Arguments& a, const Split& split) {
  return span_length(a, split.blocks, 256);
}

}  // namespace scan_adjoint

namespace scan_cuda {

BackwardRoom backward_room(const Arguments& a) {
  const scan_adjoint::Split split(a);
  const std::int64_t length = scan_adjoint::length_of_spans(a, split);
  return {.x_shares = a.x_columns == a.d_inner ? 1 : split.shares,
          .B_shares = split.shares,
          .parts = span_count(a, length),
          .scratch = ends_size(a, length)};
}

void backward(const Arguments& a, const Gradients& to, cudaStream_t stream) {
  const scan_adjoint::Split split(a);
  const std::int64_t length = scan_adjoint::length_of_spans(a, split);
  const Ends ends = ends_in(a.scratch, a, length);
  if (length <= a.tokens) launch_adjoint_ends(a, to.y, length, ends, stream);
  const scan_adjoint::Job job(a, to, split, length, ends);
  a.type == DataType::bfloat16 ? scan_adjoint::launch<__nv_bfloat16>(job, stream) : scan_adjoint::launch<float>(job, stream);
}

}  // namespace scan_cuda

}  // namespace molt::ops::scan
