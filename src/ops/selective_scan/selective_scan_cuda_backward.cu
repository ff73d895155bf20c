// Gradients of the scan. A block has up to four groups of channels that share rows of B, and walks backwards along one span in
// chunks of 64 tokens: from the state that the forward pass kept it computes the state at every eighth token into shared memory,
// then, eight tokens at a time, all states into registers, and then goes back along those eight with the gradient of the state.
//
// The sums over channels that the gradients of B and C are go through the tensor cores. Products of float32 tokens are split so
// that no bits are lost.
#include "ops/selective_scan/selective_scan_cuda_backward.cuh"

namespace molt::ops::scan {

namespace scan_adjoint {

// A thread as one of the half that stage what a step reads of its tokens and write the gradients of z and C, or of the other
// half, which write the others: four channels of a token each, so that finding places in memory costs less than what is done
// there. What is read is copied into a stager's own places of shared memory while the step behind it is on.
template <class T, int kTogether>
struct Edge {
  using Four = Packed<T, kVector>;
  using Quad = Packed<float, kVector>;

  const Job& job;
  const Part<kTogether>& part;
  Shared<T, kTogether>& shared;

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

  __device__ Edge(const Job& job, const Part<kTogether>& part, Shared<T, kTogether>& shared)
      : job(job), part(part), shared(shared) {
    const int inner = static_cast<int>(threadIdx.x);
    if (inner == 0) {
      shared.staged.begin();
      shared.left.begin();
      shared.finished.begin();
    }
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
    const bool has_B = at < part.columns;
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
        B[r] = in.B.read<T, kVector>(begin, j, part.B_column + (has_B ? at : 0));
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
        if (has_B) *reinterpret_cast<float4*>(&shared.B[j][at]) = B[r].wide();
      }
    }
  }

  // Has what a thread will read of a tile brought closer: rows of 16 channels.
  __device__ void announce_tile(int begin, const void* kept) const {
    static_assert(kThreads == kTokens * kGroups);
    const unsigned thread = thread_number(), at = thread % kGroups * kState;
    const int j = static_cast<int>(thread / kGroups);
    if (static_cast<int>(at) >= part.channels) return;
    announce(job.in.dt.template at<T>(begin, j, part.first * kState + static_cast<int>(at)));
    announce(job.in.x.template at<T>(begin, j, column(at)));
    if (static_cast<int>(at) < part.columns) announce(job.in.B.template at<T>(begin, j, part.B_column + static_cast<int>(at)));
    announce(kept);
  }
  __device__ static void announce(const void* address) { asm volatile("prefetch.global.L2 [%0];" ::"l"(address)); }

  __device__ static void copy(Four& to, const Rows& from, int begin, int j, int column) {
    const auto target = static_cast<unsigned>(__cvta_generic_to_shared(&to));
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(target), "l"(from.at<T>(begin, j, column)), "n"(sizeof(Four))
                 : "memory");
  }
  // Of the step of that number, which begins at token `begin` of the pack and has `count` tokens.
  __device__ void fetch(int begin, int count, int step) {
    const Seat s = seat();
    const int j = min(static_cast<int>(s.token), count - 1);
    auto& gate = shared.gate[step % 2][s.number];
    copy(gate.y_gradient, job.in.y_gradient, begin, j, s.channel);
    copy(gate.z, job.in.z, begin, j, s.channel);
    copy(reinterpret_cast<Four&>(quad(s, shared.C[step % 2])), job.in.C, begin, j, s.channel);
    copy(shared.x[step % 3][s.number], job.in.x, begin, j, s.x_column);
    asm volatile("cp.async.commit_group;" ::: "memory");
  }

  __device__ static bool there(const Seat& s, int count) { return static_cast<int>(s.token) < count && s.active; }
  // The rows of a step, of which `count` are there, for the walk back; others add nothing.
  __device__ void stage(int step, int count) const {
    asm volatile("cp.async.wait_group 0;" ::: "memory");
    const Seat s = seat();
    auto& gate = shared.gate[step % 2][s.number];
    const bool valid = there(s, count) && job.in.driven;
    float gy[kVector], slope[kVector];
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      const float out = valid ? gate.y_gradient[i] : 0.0f, z = gate.z[i], open = sigmoid(z), gated = z * open;
      gy[i] = job.in.gated ? out * gated : out;
      slope[i] = out * (open + gated * (1.0f - open));
    }
    quad(s, shared.gy[step % 2]) = Quad::of(gy);
    reinterpret_cast<Quad&>(gate) = Quad::of(slope);
    Quad& C = quad(s, shared.C[step % 2]);
    const float4 wide = reinterpret_cast<const Four&>(C).wide();
    C = Quad::of({wide.x, wide.y, wide.z, wide.w});
  }

  __device__ static Quad& quad(const Seat& s, float (&row)[kChannels]) { return *reinterpret_cast<Quad*>(&row[s.local]); }
  template <int kWidth>
  __device__ static Quad& quad(const Seat& s, float (&rows)[kStep][kWidth]) {
    return *reinterpret_cast<Quad*>(&rows[s.token][s.local]);
  }

  __device__ static void write(const Rows& to, int begin, int j, int column, const float (&values)[kVector]) {
    to.write(begin, j, column, Four::of(values));
  }
  // One share of a sum over groups that share a row of B, or the whole.
  __device__ void write_share(const Rows& to, std::int64_t shares, int begin, unsigned token, int column,
                              const float (&values)[kVector]) const {
    if (shares == 1) return write(to, begin, token, column, values);
    const std::int64_t row = part.share * job.a.tokens + begin + token;
    Quad::of(values).write(as<float>(const_cast<void*>(to.data)) + row * to.stride + column);
  }

  // In one piece, though only some of it is used: words by themselves would lie on the same banks.
  __device__ static float4 read_whole(const float2* from) {
    float4 to;
    asm volatile("ld.volatile.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(to.x), "=f"(to.y), "=f"(to.z), "=f"(to.w)
                 : "r"(static_cast<unsigned>(__cvta_generic_to_shared(from))));
    return to;
  }
  // The gradients of dt, x and B of the step of that number, which begins at token `begin` of the pack and has `count` tokens.
  __device__ void finish(int begin, int count, int step) {
    const Seat s = seat();
    const Quad gu = quad(s, shared.gu), gdecay = quad(s, shared.gdt), gy = quad(s, shared.gy[step % 2]), D = quad(s, shared.D);
    const Four x = shared.x[step % 3][s.number];
    const float2* steps = &shared.step[step % kSteps * kStep + s.token][s.local];
    const float4 low = read_whole(steps), high = read_whole(steps + 2);
    const float dt[kVector] = {low.x, low.z, high.x, high.z};
    float gdt[kVector], gx[kVector];
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      gdt[i] = (x[i] * gu[i] + gdecay[i] * kLn2) * softplus_slope<kExact<T>>(dt[i]);
      gx[i] = dt[i] * gu[i] + D[i] * gy[i];
    }
    const bool writes = there(s, count);
    if (writes) {
      add(shared.totals[0][s.number], gdt);
      write(job.gdt, begin, s.token, s.channel, gdt);
      if (job.a.x_columns == job.a.d_inner) write(job.gx, begin, s.token, s.channel, gx);
    }
    if (job.a.x_columns != job.a.d_inner) {
#pragma unroll
      for (float& value : gx) value = sum_groups<kTogether>(value);
      if (writes && s.local / kState % kTogether == 0) write_share(job.gx, job.to.x_shares, begin, s.token, s.x_column, gx);
    }
    finish_B(begin, count);
  }

  // That of a row of B by a warp.
  __device__ void finish_B(int begin, int count) const {
    const unsigned thread = thread_number(), lane = thread % 32, row = thread / 32, token = lane / 4, column = lane % 4 * kVector;
    if (static_cast<int>(row * kState) >= part.columns || static_cast<int>(token) >= count) return;
    float sum[kVector] = {};
#pragma unroll
    for (unsigned warp = 0; warp < 2 * kTogether; ++warp) {
      const Quad own = *reinterpret_cast<const Quad*>(&shared.sums[row * 2 * kTogether + warp][token][column]);
#pragma unroll
      for (int i = 0; i < kVector; ++i) sum[i] += own[i];
    }
#pragma unroll
    for (float& value : sum) value *= kCentred<T>;
    write_share(job.gB, job.to.B_shares, begin, token, part.B_column + static_cast<int>(row * kState + column), sum);
  }
  __device__ static void add(float4& total, const float (&values)[kVector]) {
    total = {total.x + values[0], total.y + values[1], total.z + values[2], total.w + values[3]};
  }

  // Those of z, C and D, likewise.
  __device__ void finish_gate(int begin, int count, int step) {
    const Seat s = seat();
    if (!there(s, count)) return;
    const Quad slope = reinterpret_cast<const Quad&>(shared.gate[step % 2][s.number]);
    const Four x = shared.x[step % 3][s.number];
    const Quad y = quad(s, shared.y), gy = quad(s, shared.gy[step % 2]), D = quad(s, shared.D);
    float gz[kVector], gD[kVector], gC[kVector];
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      gz[i] = slope[i] * (y[i] + D[i] * x[i]);
      gD[i] = gy[i] * x[i];
    }
    if (job.to.z) write(job.gz, begin, s.token, s.channel, gz);
    add(shared.totals[1][s.number], gD);
    const unsigned warp = s.local / kState * 2, n = kState + s.local % kState;
    const Quad low = *reinterpret_cast<const Quad*>(&shared.sums[warp][s.token][n]),
               high = *reinterpret_cast<const Quad*>(&shared.sums[warp + 1][s.token][n]);
#pragma unroll
    for (int i = 0; i < kVector; ++i) gC[i] = (low[i] + high[i]) * kCentred<T>;
    write(job.gC, begin, s.token, s.channel, gC);
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

__device__ inline const float* kept_at(const Arguments& a, std::int64_t kept, int channel, int first_state) {
  return as<float>(a.kept) + (kept * a.d_inner + channel) * kState + first_state;
}

// From a span's last tile to its first. A step's gradients are written, and the rows of the one before it staged, by warps that
// do not wait for each other as long as the walk along the step between does not need what others do.
template <class T, int kTogether>
__device__ void go_back(const Job& job, const Span& span, Adjoint<T, kTogether>& adjoint, Edge<T, kTogether>& edge, int channel) {
  int step = (span.end - span.begin - 1) / kStep, begin = span.begin + step * kStep;  // begin: the step's first token
  int kept = span.start / kTokens + span.sequence + (begin - span.start) / kTokens;
  auto& shared = edge.shared;
  if (edge.stages()) {
    edge.fetch(begin, span.end - begin, step);
    edge.stage(step, span.end - begin);
  }
  __syncthreads();
  shared.staged.arrive();
  unsigned turn = 0;
  while (step >= 0) {
    const int last = step % kSteps, tile = begin - last * kStep;
    const int first_state = static_cast<int>(Lane<kTogether>().quarter * kEach);
    float state[kEach];
    load_state(state, job.a.kept, kept, job.a.d_inner, channel, first_state);
    edge.stage_tile(tile, min(span.end - tile, kTokens));
    __syncthreads();
    --kept;
    if (step > last) edge.announce_tile(tile - kTokens, kept_at(job.a, kept, channel, first_state));
    adjoint.find_states(state, last);
    const auto finish = [&] {
      const int behind = begin + kStep, count = span.end - behind;
      shared.left.await(turn ^ 1);
      edge.stages() ? edge.finish_gate(behind, count, step + 1) : edge.finish(behind, count, step + 1);
    };
    for (bool any_behind = false;; any_behind = true) {
      const bool stages = step > 0 && edge.stages();
      if (any_behind) finish();
      shared.finished.arrive();
      if (stages) edge.fetch(begin - kStep, kStep, step - 1);
      if (any_behind) adjoint.load_stored(state, step % kSteps);
      shared.staged.await(turn);
      const auto sums = adjoint.go_back(state, step);
      shared.finished.await(turn);
      adjoint.leave(sums);
      shared.left.arrive();
      if (stages) edge.stage(step - 1, kStep);
      shared.staged.arrive();
      turn ^= 1;
      --step, begin -= kStep;
      if (step % kSteps == kSteps - 1 || step < 0) break;
    }
    finish();
    __syncthreads();
  }
}

template <class T, int kTogether>
__global__ void __launch_bounds__(kThreads, 2) backward_kernel(const Job job) {
  extern __shared__ float4 bytes[];
  auto& shared = *reinterpret_cast<Shared<T, kTogether>*>(bytes);
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
  constexpr int kBytes = static_cast<int>(sizeof(Shared<T, kTogether>));
  cudaFuncSetAttribute(backward_kernel<T, kTogether>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  const cudaLaunchConfig_t config{.gridDim = static_cast<unsigned>(blocks),
                                  .blockDim = kThreads,
                                  .dynamicSmemBytes = kBytes,
                                  .stream = stream,
                                  .attrs = nullptr};
  launch_carrier(backward_kernel<T, kTogether>, job, config, job.length <= job.a.tokens);
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
