// Gradients of the scan. A block has up to four groups of channels that share rows of B, and walks backwards along one span in
// tiles of 32 tokens, each from the state that the forward pass kept before it: forward along the tile, storing the state after
// each token in shared memory, then back with the gradient of the state, which takes the states' places. A warp walks along one
// group; half of the warps do nothing else, the others stage eight tokens at a time what the walk reads and write what it comes
// to, while it is elsewhere in the tile.
//
// The sums over channels that the gradients of B and C are go through the tensor cores where tokens are bfloat16: states and
// their gradients are rounded to bfloat16 there, and where the gradients of dt and A_log take a state from shared memory, but
// never on their way along the tokens.
#include "ops/selective_scan/selective_scan_cuda_backward.cuh"

namespace molt::ops::scan {

namespace scan_adjoint {

// The sum over the groups that share a row of B, of lanes that have kVector channels each; in the lanes of the first of them.
template <int kTogether>
__device__ float sum_groups(float value) {
  constexpr int kLanes = kState / kVector;
  if constexpr (kTogether == 3) {
    return value + __shfl_down_sync(kWarp, value, kLanes) + __shfl_down_sync(kWarp, value, 2 * kLanes);
  } else {
    if constexpr (kTogether > 1) value += __shfl_xor_sync(kWarp, value, kLanes);
    if constexpr (kTogether > 2) value += __shfl_xor_sync(kWarp, value, 2 * kLanes);
    return value;
  }
}

// One of the threads that stage steps and write gradients: four channels of a token each.
template <class T, int kTogether>
struct Helper {
  using Four = Packed<T, kVector>;
  using Quad = Packed<float, kVector>;
  using Where = Place<T, kTogether>;

  const Job& job;
  const Part<kTogether>& part;
  const Course& course;
  unsigned number = threadIdx.x % kHelpers, token = number / kAcross, local = number % kAcross * kVector;
  bool active, has_B, x_shared;  // its channels are there; it has a piece of B; groups share columns of x
  int channel, x_column;         // of the first of its channels, in all; where their x begins
  Columns<T> dt, x, y_gradient, z, B, C, gdt;
  float bias[kVector] = {}, D[kVector] = {};
  float bias_sums[kVector] = {}, D_sums[kVector] = {};  // shares of the gradients of dt_bias and D

  // What is on its way from memory: the step after the last one staged. Zeros where nothing is.
  struct Raw {
    Four dt, x, y_gradient, z, B, C;
  } raw;
  int turn = 0, step = 0;  // of it
  bool there = false;      // its token

  __device__ Helper(const Job& job, const Part<kTogether>& part, const Course& course)
      : job(job),
        part(part),
        course(course),
        active(static_cast<int>(local) < part.channels),
        has_B(static_cast<int>(local) < part.columns),
        x_shared(job.a.x_columns != job.a.d_inner),
        channel(part.first * kState + static_cast<int>(local)),
        x_column(x_shared ? part.B_column + static_cast<int>(part.row(local) + local % kState) : channel),
        dt(job.in.dt, channel),
        x(job.in.x, x_column),
        y_gradient(job.in.y_gradient, channel),
        z(job.in.z, channel),
        B(job.in.B, part.B_column + static_cast<int>(local)),
        C(job.in.C, channel),
        gdt(job.gdt, channel) {}

  __device__ void load_parameters() {
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      if (active) bias[i] = cuda::parameter(job.a.dt_bias, channel + i, job.a.dt_bias_type);
      if (active) D[i] = cuda::parameter(job.a.D, channel + i);
    }
  }

  __device__ void fetch() {
    const int at = course.begin(turn, step) + static_cast<int>(token);
    raw = {};
    there = active && static_cast<int>(token) < course.count(turn, step);
    if (!there) return;
    raw.dt = dt.template read<kVector>(at);
    raw.x = x.template read<kVector>(at);
    if (job.in.driven) raw.y_gradient = y_gradient.template read<kVector>(at);
    raw.z = z.template read<kVector>(at);
    raw.C = C.template read<kVector>(at);
    if (has_B) raw.B = B.template read<kVector>(at);
  }

  // Puts the fetched step in its place and has the next one fetched. Tokens past the end leave states as they are.
  __device__ void stage(Shared<T, kTogether>& shared) {
    const int place = Course::step_in(turn, step);
    Where& to = shared.places[place];
    float dts[kVector], gy[kVector], slope[kVector];
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      const float out = raw.y_gradient[i], z = raw.z[i], open = sigmoid(z), gated = z * open;
      dts[i] = softplus(there ? raw.dt[i] + bias[i] : -INFINITY);
      gy[i] = out * (job.in.gated ? gated : 1.0f);
      slope[i] = out * (open + gated * (1.0f - open));
      D_sums[i] += gy[i] * raw.x[i];
    }
    quad(to.dt) = Quad::of(dts);
    *reinterpret_cast<float4*>(&quad(to.x)) = raw.x.wide();
    quad(to.gy) = Quad::of(gy);
    quad(to.slope) = Quad::of(slope);
    *reinterpret_cast<float4*>(&quad(to.C)) = raw.C.wide();
    if (has_B) *reinterpret_cast<float4*>(&to.B[token][local]) = raw.B.wide();
    shared.staged[place].arrive();
    if (++step == course.steps(turn)) ++turn, step = 0;
    if (turn < course.tiles) fetch();
  }

  template <int kWidth>
  __device__ Quad& quad(float (&rows)[kStep][kWidth]) const {
    return *reinterpret_cast<Quad*>(&rows[Where::row(token)][local]);
  }

  // One share of a sum over groups that share a row of B, or the whole.
  __device__ void write_share(const Rows& to, std::int64_t shares, int column, int at, const float (&values)[kVector]) const {
    if (shares == 1) return Four::of(values).write(Columns<T>(to, column).row(at));
    Quad::of(values).write(Columns<float>(to, column).row(part.share * static_cast<int>(job.a.tokens) + at));
  }

  // The gradients of dt, x and B of a step that was walked back.
  __device__ void finish(Where& from, int begin, int count) {
    const Quad gu = quad(from.C), gdecay = quad(from.slope), gy = quad(from.gy), dt = quad(from.dt), x = quad(from.x);
    float gdts[kVector], gx[kVector];
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      gdts[i] = (x[i] * gu[i] + gdecay[i] * kLn2) * softplus_slope<Four::kWide>(dt[i]);
      gx[i] = dt[i] * gu[i] + D[i] * gy[i];
      bias_sums[i] += gdts[i];
    }
    if (x_shared) {
#pragma unroll
      for (float& value : gx) value = sum_groups<kTogether>(value);
    }
    const int at = begin + static_cast<int>(token);
    if (!active || static_cast<int>(token) >= count) return;
    Four::of(gdts).write(gdt.row(at));
    if (!x_shared || local / kState % kTogether == 0) write_share(job.gx, job.to.x_shares, x_column, at, gx);
    if (has_B) finish_B(from, at);
  }

  __device__ void finish_B(Where& from, int at) const {
    float sums[kVector] = {};
#pragma unroll
    for (int i = 0; i < kTogether; ++i) {
      const unsigned group = local / kState * kTogether + i;
      if (kTogether < kGroups && static_cast<int>(group) * kState >= part.channels) break;
      const Quad own = *reinterpret_cast<const Quad*>(from.sums(token, group) + local % kState);
#pragma unroll
      for (int k = 0; k < kVector; ++k) sums[k] += own[k];
    }
    write_share(job.gB, job.to.B_shares, part.B_column + static_cast<int>(local), at, sums);
  }

  // The span's share of what is summed over tokens, through `room`.
  __device__ void finish_sums(float (&room)[2][kStep][kChannels], int span) const {
    asm volatile("bar.sync 1, %0;" ::"n"(kHelpers) : "memory");  // the others have finished as well
    *reinterpret_cast<Quad*>(&room[0][token][local]) = Quad::of(bias_sums);
    *reinterpret_cast<Quad*>(&room[1][token][local]) = Quad::of(D_sums);
    asm volatile("bar.sync 1, %0;" ::"n"(kHelpers) : "memory");
    if (static_cast<int>(number) >= part.channels) return;
    float sums[2] = {};
    for (int i = 0; i < 2; ++i) {
      for (const auto& each : room[i]) sums[i] += each[number];
    }
    const std::int64_t at = std::int64_t{span} * job.a.d_inner + part.first * kState + number;
    if (job.to.dt_bias) as<float>(job.to.dt_bias)[at] = sums[0];
    if (job.to.D) as<float>(job.to.D)[at] = sums[1];
  }
};

template <class T, int kTogether>
__device__ void help(const Job& job, const Part<kTogether>& part, const Span& span, Shared<T, kTogether>& shared) {
  const Course course(span);
  Helper<T, kTogether> helper(job, part, course);
  if (course.tiles > 0) {
    helper.fetch();
    helper.load_parameters();  // while the first step is on its way
    for (int first = course.steps(0); first > 0; --first) helper.stage(shared);
  }
  for (int turn = 0; turn < course.tiles; ++turn) {
    for (int step = kSteps - 1; step >= 0; --step) {
      if (step < course.steps(turn)) {
        const int place = Course::step_in(turn, step);
        shared.finished[place].await(course.phase(turn, place));
        helper.finish(shared.places[place], course.begin(turn, step), course.count(turn, step));
      }
      if (turn + 1 < course.tiles) helper.stage(shared);
    }
  }
  helper.finish_sums(*reinterpret_cast<float(*)[2][kStep][kChannels]>(&shared), span.number);
}

// One of the threads that walk along a span, with what it is told of the block and what it writes on the way.
template <class T, int kTogether>
struct Path {
  using Sums = GroupSums<T>;
  using Where = Place<T, kTogether>;

  const Job& job;
  const Span& span;
  const Course course;
  Shared<T, kTogether>& shared;
  Walker<T, kTogether> walker;
  unsigned group = threadIdx.x / 32;
  int lane = static_cast<int>(threadIdx.x % 32), two = lane % 4 * 2;  // the first of the tokens whose sums the lane has
  int first_state = static_cast<int>(walker.upper) * kEach, channel;
  bool active;
  Columns<T> gz, gC;
  float h[kEach] = {};  // the state where a tile begins, then on the way

  __device__ Path(const Job& job, const Part<kTogether>& part, const Span& span, Shared<T, kTogether>& shared)
      : job(job),
        span(span),
        course(span),
        shared(shared),
        channel(part.first * kState),
        active(static_cast<int>(walker.channel) < part.channels),
        gz(job.gz, channel + static_cast<int>(active ? walker.channel : 0)),
        gC(job.gC, channel + static_cast<int>(group) * kState) {
    const Arguments& a = job.a;
    if (active) channel += static_cast<int>(walker.channel);
    load_decay(walker.A, a, channel, first_state);
    walker.D = cuda::parameter(a.D, channel);
    if (!span.exists) return;
    load_state(walker.g, job.to.final_state, span.sequence, a.d_inner, channel, first_state);
    carry<true>(walker.g, walker.A, job.ends, span, a.d_inner, channel, first_state);
    if (course.tiles > 0) load_kept(0);
  }

  // What the forward pass kept before the tile of that turn.
  __device__ void load_kept(int turn) {
    const int kept = span.start / kTile + span.sequence + (course.begin(turn) - span.start) / kTile;
    const float* from = as<float>(job.a.kept) + (std::int64_t{kept} * job.a.d_inner + channel) * kState + first_state;
    const auto whole = walker.eight(*from);
#pragma unroll
    for (int k = 0; k < kEach; ++k) h[k] = whole[k];
  }
  // Values of two channels of the group from a place's rows.
  template <int kWidth>
  __device__ const float2& pair(const float (&rows)[kStep][kWidth], unsigned token, unsigned channel) const {
    return *reinterpret_cast<const float2*>(&rows[Where::row(token)][group * kState + channel]);
  }

  // The states of a step, and the gradients of z and C.
  __device__ void go_forward(int turn, int step) {
    const int number = Course::step_in(turn, step), begin = course.begin(turn, step), count = course.count(turn, step);
    Where& place = shared.places[number];
    shared.staged[number].await(course.phase(turn, number));
    const auto gys = Sums::find([&](unsigned t, unsigned c) { return pair(place.gy, t, c); });
    float y[kStep / 2];
    walker.go_forward(place, h, y);

    const bool writes_z = job.to.z && active;
    char* to = reinterpret_cast<char*>(gz.row(begin + static_cast<int>(walker.upper)));
#pragma unroll
    for (int i = 0; i < kStep / 2; ++i) {
      const int token = 2 * i + static_cast<int>(walker.upper);
      const float slope = place.slope[place.row(token)][walker.channel], x = place.x[place.row(token)][walker.channel];
      if (writes_z && token < count) *reinterpret_cast<T*>(to) = T(slope * (y[i] + walker.D * x));
      to += 2 * gz.stride;
    }
    __syncwarp();
    const Sums own(place, group, gys);
    T* first = gC.row(begin + two) + lane / 4;
    T* second = reinterpret_cast<T*>(reinterpret_cast<char*>(first) + gC.stride);
    if (active && two < count) first[0] = T(own.sums[0]), first[8] = T(own.sums[2]);
    if (active && two + 1 < count) second[0] = T(own.sums[1]), second[8] = T(own.sums[3]);
  }

  // Back along a step of a tile that `entering` came before, leaving the group's sums for B.
  __device__ void go_back(int turn, int step, const typename Where::Half& entering) {
    const int number = Course::step_in(turn, step);
    Where& place = shared.places[number];
    const auto us = Sums::find([&](unsigned t, unsigned c) {
      const float2 dt = pair(place.dt, t, c), x = pair(place.x, t, c);
      return float2{dt.x * x.x, dt.y * x.y};
    });
    if (step == 0 && turn + 1 < course.tiles) load_kept(turn + 1);
    walker.go_back(place, [&] {
      const int before = Course::step_in(turn, max(step - 1, 0));
      return step > 0 ? shared.places[before].half(kStep - 1, walker.channel, walker.upper) : entering;
    });
    __syncwarp();
    const Sums own(place, group, us);
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; ++i) place.sums(two + i % 2, group)[lane / 4 + i / 2 * 8] = own.sums[i];
    shared.finished[number].arrive();
  }

  // The span's share of the gradient of A_log, and the gradient of the initial state.
  __device__ void end() {
    const Arguments& a = job.a;
    if (!active) return;
    if (job.to.initial_state && span.exists && span.number == span.first)
      store_state(job.to.initial_state, walker.g, span.sequence, a.d_inner, channel, first_state);
#pragma unroll
    for (int k = 0; k < kEach; ++k) walker.gA[k] *= walker.A[k] * kLn2;
    store_state(job.to.A_log, walker.gA, span.number, a.d_inner, channel, first_state);
  }
};

template <class T, int kTogether>
__device__ void walk(const Job& job, const Part<kTogether>& part, const Span& span, Shared<T, kTogether>& shared) {
  Path<T, kTogether> path(job, part, span, shared);
  for (int turn = 0; turn < path.course.tiles; ++turn) {
    const int steps = path.course.steps(turn);
    const auto entering = Packed<T, kEach>::of(path.h);
    for (int step = 0; step < steps; ++step) path.go_forward(turn, step);
    __syncwarp();
    for (int step = steps - 1; step >= 0; --step) path.go_back(turn, step, entering);
  }
  path.end();
}

template <class T, int kTogether>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 2 ? 2 : 1) backward_kernel(const Job job) {
  extern __shared__ float4 bytes[];
  auto& shared = *reinterpret_cast<Shared<T, kTogether>*>(bytes);
  if (!is_cut(job.a, job.length)) cuda::await_previous();
  cuda::let_next_begin();
  const Span span(job.a, blockIdx.x / job.split.blocks, job.length);
  const Part<kTogether> part(job, blockIdx.x % job.split.blocks);
  if (threadIdx.x < kSteps) {
    shared.staged[threadIdx.x].begin(kHelpers / 32);
    shared.finished[threadIdx.x].begin(kWalkers / 32);
  }
  __syncthreads();
  threadIdx.x < kWalkers ? walk(job, part, span, shared) : help(job, part, span, shared);
}

template <class T, int kTogether>
void launch(const Job& job, cudaStream_t stream) {
  const std::int64_t blocks = job.split.blocks * span_count(job.a, job.length);
  if (blocks == 0) return;
  constexpr int kBytes = static_cast<int>(sizeof(Shared<T, kTogether>));
  cudaFuncSetAttribute(backward_kernel<T, kTogether>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  const auto kernel = backward_kernel<T, kTogether>;
  cuda::launch_behind(kernel, static_cast<unsigned>(blocks), kThreads, kBytes, stream, job);
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

bool backward_fits(DataType type) {
  int device = 0, bytes = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  const auto needed =
      type == DataType::float32 ? sizeof(scan_adjoint::Shared<float, 1>) : sizeof(scan_adjoint::Shared<__nv_bfloat16, 1>);
  return needed <= static_cast<std::size_t>(bytes);
}

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
  if (is_cut(a, length)) launch_adjoint_ends(a, to.y, length, ends, stream);
  const scan_adjoint::Job job(a, to, split, length, ends);
  a.type == DataType::bfloat16 ? scan_adjoint::launch<__nv_bfloat16>(job, stream) : scan_adjoint::launch<float>(job, stream);
}

}  // namespace scan_cuda

}  // namespace molt::ops::scan
