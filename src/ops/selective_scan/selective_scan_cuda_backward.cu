// Gradients of the scan. A block has up to four groups of channels that share rows of B, and walks backwards along one span in
// chunks of 64 tokens: from the state that the forward pass kept it computes the state at every eighth token into shared memory,
// then, eight tokens at a time, all states into registers, and then goes back along those eight with the gradient of the state.
//
// The sums over channels that the gradients of B and C are go through the tensor cores: a row of ones for each token sums the
// products of four lanes, eight tokens to a matrix. Products of float32 tokens are split in two so that no bits are lost.
#include "ops/selective_scan/selective_scan_cuda_backward.cuh"

namespace molt::ops::scan {

namespace scan_adjoint {

// A thread as one of the half that stage what a step reads of its tokens and write the gate's gradient, or of the other half,
// which write all other gradients: four channels of a token each, so that finding places in memory costs less than what is done
// there. What is read is copied into a stager's own places of shared memory while the step before is on.
template <class T, int kTogether>
struct Edge {
  using Four = Packed<T, kVector>;
  using Quad = Packed<float, kVector>;
  enum { kOut, kZ, kC, kX };  // kOut: the gradient of y

  const Job& job;
  const Part<kTogether>& part;
  Shared<T>& shared;

  // The thread's token of kStep, and the first of its channels in the block and in all.
  struct Seat {
    unsigned number = thread_number() % kEdges, token = number / kAcross, local = number % kAcross * kVector;
    int channel = 0, x_column = 0;
    bool active = false;
  };
  __device__ Seat seat() const {
    Seat s;
    s.active = static_cast<int>(s.local) < part.channels;
    const unsigned inner = s.active ? s.local : 0;
    s.channel = part.first * kState + static_cast<int>(inner);
    s.x_column = column(inner);
    return s;
  }
  __device__ static bool stages() { return thread_number() >= kEdges; }

  __device__ Edge(const Job& job, const Part<kTogether>& part, Shared<T>& shared) : job(job), part(part), shared(shared) {
    const int inner = static_cast<int>(threadIdx.x);
    if (inner < kChannels) {
      const int channel = part.first * kState + (inner < part.channels ? inner : 0);
      shared.D[inner] = job.a.D ? as<float>(job.a.D)[channel] : 0.0f;
    }
    shared.totals[threadIdx.x / kEdges][threadIdx.x % kEdges] = {0.0f, 0.0f, 0.0f, 0.0f};
  }

  // Of x, for channel `inner` of the block.
  __device__ int column(unsigned inner) const {
    const unsigned own = job.a.x_columns == job.a.d_inner ? inner : part.row(inner) + inner % kState;
    return (job.a.x_columns == job.a.d_inner ? part.first * kState : part.B_column) + static_cast<int>(own);
  }

  // dt, x and B of a tile. Rows past the end leave states as they are.
  __device__ void stage_tile(int begin, int count) const {
    constexpr int kRows = kThreads / kAcross, kRounds = kTokens / kRows;
    const Inputs& in = job.in;
    const int first = static_cast<int>(threadIdx.x / kAcross), at = static_cast<int>(threadIdx.x % kAcross * kVector);
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
    const auto target = static_cast<unsigned>(__cvta_generic_to_shared(&shared.raw[step & 1][which][s.number]));
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(target), "l"(source), "n"(sizeof(Four)) : "memory");
  }
  // Of the step of that number, which begins at token `begin` of the pack and has `count` tokens.
  __device__ void fetch(int begin, int count, int step) {
    const Seat s = seat();
    const int j = min(static_cast<int>(s.token), count - 1);
    copy(s, kOut, step, job.in.y_gradient, begin, j, s.channel);
    copy(s, kZ, step, job.in.z, begin, j, s.channel);
    copy(s, kC, step, job.in.C, begin, j, s.channel);
    copy(s, kX, step, job.in.x, begin, j, s.x_column);
    asm volatile("cp.async.commit_group;" ::: "memory");
  }

  __device__ static bool there(const Seat& s, int count) { return static_cast<int>(s.token) < count && s.active; }
  // The gradient before skip and gate; zero for rows that are not there.
  __device__ Quad ungated(const Seat& s, int step, int count) const {
    const auto& raw = shared.raw[step & 1];
    const Four out = raw[kOut][s.number], z = raw[kZ][s.number];
    const bool valid = there(s, count) && job.in.driven;
    float gy[kVector];
#pragma unroll
    for (int i = 0; i < kVector; ++i) gy[i] = valid ? out[i] : 0.0f;
    if (job.in.gated) {
#pragma unroll
      for (int i = 0; i < kVector; ++i) gy[i] *= z[i] * sigmoid(z[i]);
    }
    return Quad::of(gy);
  }

  // The rows of a step, of which `count` are there, for the walk back; others add nothing.
  __device__ void stage(int step, int count) const {
    asm volatile("cp.async.wait_group 0;" ::: "memory");
    const Seat s = seat();
    quad(s, shared.gy) = ungated(s, step, count);
    const float4 C = shared.raw[step & 1][kC][s.number].wide();
    quad(s, shared.C) = Quad::of({C.x, C.y, C.z, C.w});
  }

  __device__ static Quad& quad(const Seat& s, float (&row)[kChannels]) { return *reinterpret_cast<Quad*>(&row[s.local]); }
  template <int kWidth>
  __device__ static Quad& quad(const Seat& s, float (&rows)[kStep][kWidth]) {
    return *reinterpret_cast<Quad*>(&rows[s.token][s.local]);
  }

  __device__ static void write(const Rows& to, int begin, int j, int column, const float (&values)[kVector]) {
    to.write(begin, j, column, Four::of(values));
  }
  // The sum over groups that share a row of B: one share of it, or the whole.
  __device__ void write_sum(const Seat& s, bool writes, const Rows& to, std::int64_t shares, int begin, int column,
                            float (&values)[kVector]) const {
#pragma unroll
    for (float& value : values) value = sum_groups<kTogether>(value);
    if (!writes || s.local / kState % kTogether != 0) return;
    if (shares == 1) return write(to, begin, s.token, column, values);
    const std::int64_t row = part.share * job.a.tokens + begin + s.token;
    Quad::of(values).write(as<float>(const_cast<void*>(to.data)) + row * to.stride + column);
  }

  // Of the group's two warps: sums for B (0) or C (1).
  __device__ void group_sum(float (&sum)[kVector], const Seat& s, int which) const {
    const unsigned warp = s.local / kState * 2, n = which * kState + s.local % kState;
    const Quad low = *reinterpret_cast<const Quad*>(&shared.sums[warp][s.token][n]),
               high = *reinterpret_cast<const Quad*>(&shared.sums[warp + 1][s.token][n]);
#pragma unroll
    for (int i = 0; i < kVector; ++i) sum[i] = (low[i] + high[i]) * kCentred<T>;
  }

  // The gradients, but the gate's, of a step that begins at row `first` of the tile and at token `begin` of the pack, of which
  // `count` are there.
  __device__ void finish(int begin, int count, int first, int step) {
    const Seat s = seat();
    const Quad gu = quad(s, shared.gu), gdecay = quad(s, shared.gdt), gy = ungated(s, step, count), D = quad(s, shared.D);
    const Four x = shared.raw[step & 1][kX][s.number];
    const float4* steps = reinterpret_cast<const float4*>(&shared.step[first + s.token][s.local]);
    const float4 low = steps[0], high = steps[1];
    const float dt[kVector] = {low.x, low.z, high.x, high.z};
    float gdt[kVector], gx[kVector], gD[kVector], sum[kVector];
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      gdt[i] = (x[i] * gu[i] + gdecay[i] * kLn2) * softplus_slope<kExact<T>>(dt[i]);
      gx[i] = dt[i] * gu[i] + D[i] * gy[i];
      gD[i] = gy[i] * x[i];
    }
    const bool writes = there(s, count);
    group_sum(sum, s, 1);
    if (writes) {
      add(shared.totals[0][s.number], gdt);
      add(shared.totals[1][s.number], gD);
      write(job.gdt, begin, s.token, s.channel, gdt);
      write(job.gC, begin, s.token, s.channel, sum);
      if (job.a.x_columns == job.a.d_inner) write(job.gx, begin, s.token, s.channel, gx);
    }
    if (job.a.x_columns != job.a.d_inner) write_sum(s, writes, job.gx, job.to.x_shares, begin, s.x_column, gx);
    group_sum(sum, s, 0);
    const int B_column = part.B_column + static_cast<int>(part.row(s.local) + s.local % kState);
    write_sum(s, writes, job.gB, job.to.B_shares, begin, B_column, sum);
  }
  __device__ static void add(float4& total, const float (&values)[kVector]) {
    total = {total.x + values[0], total.y + values[1], total.z + values[2], total.w + values[3]};
  }

  // The gate's gradient, likewise.
  __device__ void finish_gate(int begin, int count, int step) {
    const Seat s = seat();
    if (!job.to.z || !there(s, count)) return;
    const auto& raw = shared.raw[step & 1];
    const Four out = raw[kOut][s.number], z = raw[kZ][s.number], x = raw[kX][s.number];
    const Quad y = quad(s, shared.y), D = quad(s, shared.D);
    float gz[kVector];
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      const float open = sigmoid(z[i]), slope = open * (1.0f + z[i] * (1.0f - open));
      gz[i] = job.in.driven ? out[i] * (y[i] + D[i] * x[i]) * slope : 0.0f;
    }
    write(job.gz, begin, s.token, s.channel, gz);
  }

  // The span's share of what is summed over tokens. All threads of the block take part.
  __device__ void finish_sums(int span) {
    __syncthreads();
    const int inner = static_cast<int>(threadIdx.x);
    if (inner >= part.channels) return;
    float bias_sum = 0.0f, D_sum = 0.0f;
    for (int j = 0; j < kStep; ++j) {
      const int at = (j * kAcross + inner / kVector) * kVector + inner % kVector;
      bias_sum += reinterpret_cast<const float*>(shared.totals[0])[at];
      D_sum += reinterpret_cast<const float*>(shared.totals[1])[at];
    }
    const std::int64_t place = std::int64_t{span} * job.a.d_inner + part.first * kState + inner;
    if (job.to.dt_bias) as<float>(job.to.dt_bias)[place] = bias_sum;
    if (job.to.D) as<float>(job.to.D)[place] = D_sum;
  }
};

template <class T, int kTogether>
__device__ void go_back(const Job& job, const Span& span, Adjoint<T, kTogether>& adjoint, Edge<T, kTogether>& edge, int channel) {
  const int length = span.end - span.begin, first_state = static_cast<int>(Lane<kTogether>().quarter * kEach);
  int step = (length - 1) / kStep;  // of the span, counted from its begin
  if (edge.stages()) {
    edge.fetch(span.begin + step * kStep, length - step * kStep, step);
    edge.stage(step, length - step * kStep);
  }
  for (int tile = (length - 1) / kTokens; tile >= 0; --tile) {
    const int begin = span.begin + tile * kTokens, count = min(span.end - begin, kTokens);
    const int kept = span.start / kTokens + span.sequence + (begin - span.start) / kTokens;
    float state[kEach];
    load_state(state, job.a.kept, kept, job.a.d_inner, channel, first_state);
    edge.stage_tile(begin, count);
    __syncthreads();
    adjoint.find_states(state, count);
    for (; step >= tile * (kTokens / kStep); --step) {
      const int first = step * kStep - tile * kTokens;
      if (step > 0 && edge.stages()) edge.fetch(begin + first - kStep, kStep, step - 1);
      adjoint.go_back(first);
      __syncthreads();
      if (edge.stages()) {
        edge.finish_gate(begin + first, count - first, step);
        if (step > 0) edge.stage(step - 1, kStep);
      } else {
        edge.finish(begin + first, count - first, first, step);
      }
      __syncthreads();
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
  const int own = static_cast<int>(lane.channel), first = static_cast<int>(lane.quarter * kEach);
  const bool active = own < part.channels;
  const int channel = part.first * kState + (active ? own : 0);
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
