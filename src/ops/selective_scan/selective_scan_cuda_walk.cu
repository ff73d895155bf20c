// The walk along the tokens, forward with outputs, or only for what it ends with. A block has 32 channels of one span: half of
// its threads walk through a tile of tokens in shared memory while the other half prepare the next tile and finish the outputs of
// the one before, so that the walkers, about one warp a scheduler where a single sequence is scanned, do nothing else.
#include "ops/selective_scan/selective_scan_cuda.cuh"

namespace molt::ops::scan {

namespace scan_walk {

using namespace scan_cuda;

enum class Walk { outputs, state_ends, adjoint_ends };

constexpr int kChannels = 32, kTokens = 32;          // of a block; of a tile
constexpr int kEach = 4, kSharers = kState / kEach;  // states of a walker; walkers of a channel
constexpr int kWalkers = kChannels * kSharers, kHelpers = 128, kThreads = kWalkers + kHelpers;
constexpr int kVector = 4, kRows = kHelpers / (kChannels / kVector), kRounds = kTokens / kRows;  // how helpers split a tile

// What a walker reads of each token, and what it leaves. Rows past the end are zeros, which leave states as they are.
struct alignas(16) Tile {
  float2 step[kTokens][kChannels];  // dt, and what a row is multiplied by: dt * x, backwards the gradient before skip and gate
  float into[kTokens][kChannels];   // B, backwards C: added to the states
  float out[kTokens][kChannels];    // C: what y sums the states by
  float y[kTokens][kChannels + 32 / kSharers];  // the padding keeps what a warp writes at once on different banks
};

struct Job {
  Arguments a;
  Inputs in;
  int length = 0, blocks = 0;  // tokens of a span, blocks that share one
  Ends ends;

  Job(const Arguments& a, const void* y_gradient, std::int64_t length, Ends ends)
      : a(a),
        in(a, y_gradient),
        length(static_cast<int>(length)),
        blocks(static_cast<int>((a.d_inner + kChannels - 1) / kChannels)),
        ends(ends) {}
};

// One thread's states on their way. A warp has the channels of 32 / kSharers lanes beside each other.
template <Walk kWalk>
struct Walker {
  static constexpr int kAcross = 32 / kSharers;
  using States = Packed<float, kEach>;

  float A[kEach], h[kEach] = {}, dt_sum = 0.0f;
  int lane, channel, part,
      column;  // channel in the block; which of its walkers; column of its group's row where its states begin

  __device__ explicit Walker(int thread)
      : lane(thread % 32),
        channel(thread / 32 * kAcross + lane % kAcross),
        part(lane / kAcross),
        column(channel / kState * kState + part * kEach) {}

  struct Row {
    float2 step;
    States into, out;
  };
  __device__ Row read(const Tile& tile, int j) const {
    Row row;
    row.step = tile.step[j][channel];
    row.into = *reinterpret_cast<const States*>(&tile.into[j][column]);
    if constexpr (kWalk == Walk::outputs) row.out = *reinterpret_cast<const States*>(&tile.out[j][column]);
    return row;
  }

  // One token; the lane's part of y.
  __device__ float advance(const Row& row) {
    float y = 0.0f;
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      const float decay = exp2_fast(row.step.x * A[k]), input = row.step.y * row.into[k];
      h[k] = kWalk == Walk::adjoint_ends ? decay * (h[k] + input) : decay * h[k] + input;
      if constexpr (kWalk == Walk::outputs) y += h[k] * row.out[k];
    }
    if constexpr (kWalk != Walk::outputs) dt_sum += row.step.x;
    return y;
  }

  // A whole tile, as many tokens at a time as a channel has walkers. The next ones' rows are read before these are used.
  __device__ void walk(Tile& tile) {
    Row rows[2][kSharers];
#pragma unroll
    for (int r = 0; r < kSharers; ++r) rows[0][r] = read(tile, r);
#pragma unroll
    for (int j = 0; j < kTokens; j += kSharers) {
      const int turn = j / kSharers % 2;
#pragma unroll
      for (int r = 0; r < kSharers; ++r) {
        if (j + kSharers < kTokens) rows[1 - turn][r] = read(tile, j + kSharers + r);
      }
      float y[kSharers];
#pragma unroll
      for (int r = 0; r < kSharers; ++r) y[r] = advance(rows[turn][r]);
      if constexpr (kWalk == Walk::outputs) tile.y[j + part][channel] = sum_lanes(y, lane);
    }
  }
};

// One of the threads that fill tiles and finish outputs: four channels of every kRows-th token.
template <class T, Walk kWalk>
struct Helper {
  using Four = Packed<T, kVector>;
  static constexpr bool kBackwards = kWalk == Walk::adjoint_ends;
  static constexpr int kAhead = sizeof(T) == 2 ? 2 : 1;

  const Job& job;
  const Span& span;
  int last, row, local;             // last tile; first token in a tile; first channel in the block
  int channel, x_column, B_column;  // the last two: where x and B of these channels begin
  bool active;
  float bias[kVector], D[kVector];
  // What is on its way from memory, of kAhead tiles in turns.
  struct Raw {
    Four dt, value, z, into, out;  // value: x, backwards the gradient of y
  } raw[kAhead][kRounds];
  struct RawOut {
    Four x, z;
  } raw_out[kAhead][kRounds];

  __device__ Helper(const Job& job, const Span& span, int last, int block, int thread)
      : job(job),
        span(span),
        last(last),
        row(thread / (kChannels / kVector)),
        local(thread % (kChannels / kVector) * kVector),
        channel(block * kChannels + local),
        active(channel < job.a.d_inner) {
    const Arguments& a = job.a;
    if (!active) channel = 0;
    B_column = shared_column(a, channel / kState) + channel % kState;
    x_column = a.x_columns == a.d_inner ? channel : B_column;
    for (int i = 0; i < kVector; ++i) {
      bias[i] = a.dt_bias ? as<float>(a.dt_bias)[channel + i] : 0.0f;
      D[i] = a.D ? as<float>(a.D)[channel + i] : 0.0f;
    }
  }

  // The first token of a tile: backwards, tiles and their rows count from the end.
  __device__ int begin(int tile) const { return kBackwards ? span.end - (tile + 1) * kTokens : span.begin + tile * kTokens; }
  // The token of row j behind it.
  __device__ int token(int j) const { return kBackwards ? kTokens - 1 - j : j; }
  __device__ bool inside(int tile, int j) const {
    return kBackwards ? begin(tile) + token(j) >= span.begin : begin(tile) + j < span.end;
  }
  // One to read in its place where there is none: without branches all loads are on their way together.
  __device__ int readable(int tile, int j) const {
    return kBackwards ? max(token(j), span.begin - begin(tile)) : min(j, span.end - 1 - begin(tile));
  }

  template <int kSlot>
  __device__ void fetch(int tile) {
    const Inputs& in = job.in;
    tile = min(tile, last);
#pragma unroll
    for (int r = 0; r < kRounds; ++r) {
      Raw& to = raw[kSlot % kAhead][r];
      const int t = begin(tile), j = readable(tile, row + r * kRows);
      to.dt = in.dt.read<T, kVector>(t, j, channel);
      to.value = kBackwards ? in.y_gradient.read<T, kVector>(t, j, channel) : in.x.read<T, kVector>(t, j, x_column);
      to.into = kBackwards ? in.C.read<T, kVector>(t, j, channel) : in.B.read<T, kVector>(t, j, B_column);
      if constexpr (kBackwards) to.z = in.z.read<T, kVector>(t, j, channel);
      if constexpr (kWalk == Walk::outputs) to.out = in.C.read<T, kVector>(t, j, channel);
    }
  }

  __device__ float gate(float value, float z) const {
    const float gated = value * z * sigmoid(z);
    return job.in.gated ? gated : value;
  }

  template <int kSlot>
  __device__ void prepare(Tile& to, int tile) const {
#pragma unroll
    for (int r = 0; r < kRounds; ++r) {
      const Raw& from = raw[kSlot % kAhead][r];
      const int j = row + r * kRows;
      const bool valid = inside(tile, j), driven = valid && (!kBackwards || job.in.driven);
      float2 step[kVector];
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        const float dt = softplus(from.dt[i] + bias[i]), value = from.value[i];
        const float drive = kBackwards ? gate(value, from.z[i]) : dt * value;
        step[i] = {valid ? dt : 0.0f, driven ? drive : 0.0f};
      }
      float4* steps = reinterpret_cast<float4*>(&to.step[j][local]);
      steps[0] = {step[0].x, step[0].y, step[1].x, step[1].y};
      steps[1] = {step[2].x, step[2].y, step[3].x, step[3].y};
      *reinterpret_cast<float4*>(&to.into[j][local]) = from.into.wide();
      if constexpr (kWalk == Walk::outputs) *reinterpret_cast<float4*>(&to.out[j][local]) = from.out.wide();
    }
  }

  template <int kSlot>
  __device__ void fetch_output(int tile) {
    tile = min(tile, last);
#pragma unroll
    for (int r = 0; r < kRounds; ++r) {
      const int t = begin(tile), j = readable(tile, row + r * kRows);
      raw_out[kSlot % kAhead][r].x = job.in.x.read<T, kVector>(t, j, x_column);
      raw_out[kSlot % kAhead][r].z = job.in.z.read<T, kVector>(t, j, channel);
    }
  }

  // Skip, gate, and the output's rows.
  template <int kSlot>
  __device__ void finish(const Tile& from, int tile) const {
    const Rows y_rows{job.a.y, static_cast<int>(job.a.d_inner)};
#pragma unroll
    for (int r = 0; r < kRounds; ++r) {
      const int j = row + r * kRows;
      const RawOut& raw = raw_out[kSlot % kAhead][r];
      const float4 sums = *reinterpret_cast<const float4*>(&from.y[j][local]);
      const float y[kVector] = {sums.x, sums.y, sums.z, sums.w};
      float result[kVector];
#pragma unroll
      for (int i = 0; i < kVector; ++i) result[i] = gate(y[i] + D[i] * raw.x[i], raw.z[i]);
      if (active && inside(tile, j)) y_rows.write(begin(tile), j, channel, Four::of(result));
    }
  }

  __device__ void begin_help(Tile& tile) {
    fetch<0>(0);
    if constexpr (kAhead > 1) fetch<1>(1);
    prepare<0>(tile, 0);
    fetch<kAhead>(kAhead);
    if constexpr (kAhead > 1 && kWalk == Walk::outputs) fetch_output<0>(0);
  }

  // What there is to do while tile i, of those with i % 2 == kSlot, is walked through.
  template <int kSlot>
  __device__ void help(Tile (&tiles)[2], int i) {
    Tile& other = tiles[1 - kSlot];
    prepare<kSlot + 1>(other, i + 1);
    fetch<kSlot + 1>(i + 1 + kAhead);
    if constexpr (kWalk == Walk::outputs) {
      if (i > 0) finish<kSlot + 1>(other, i - 1);
      fetch_output<kSlot - 1 + kAhead>(i - 1 + kAhead);
    }
    __syncthreads();
  }

  __device__ void end_help(const Tile (&tiles)[2]) const {
    if constexpr (kWalk == Walk::outputs) {
      last % 2 == 0 ? finish<0>(tiles[0], last) : finish<1>(tiles[1], last);
    }
  }
};

// The walkers' part of a span with outputs: states that are kept or asked for stand between tokens.
struct Stops {
  const Arguments& a;
  const Span& span;
  int wanted = 0;  // the next position asked for

  __device__ Stops(const Arguments& a, const Span& span) : a(a), span(span) {
    while (wanted < a.position_count && a.positions[wanted] < span.begin) ++wanted;
  }
  __device__ bool before(int t) const { return wanted < a.position_count && a.positions[wanted] < t; }
};

// The first `count` tokens of a tile with positions asked for, one by one.
__device__ void walk_and_store(Walker<Walk::outputs>& walker, Tile& tile, int begin, int count, Stops& stops, int channel) {
  for (int j = 0; j < count; ++j) {
    const float y[kSharers] = {walker.advance(walker.read(tile, j))};
    const float sum = sum_lanes(y, walker.lane);
    if (walker.part == 0) tile.y[j][walker.channel] = sum;
    if (!stops.before(begin + j + 1)) continue;
    if (channel < stops.a.d_inner)
      store_state(stops.a.states, walker.h, stops.wanted, stops.a.d_inner, channel, walker.part * kEach);
    ++stops.wanted;
  }
}

template <Walk kWalk>
__device__ void begin_walk(Walker<kWalk>& walker, const Job& job, const Span& span, int channel) {
  const int first = walker.part * kEach;
  load_decay(walker.A, job.a, channel, first);
  if constexpr (kWalk == Walk::outputs) {
    load_state(walker.h, job.a.initial_state, span.sequence, job.a.d_inner, channel, first);
    carry<false>(walker.h, walker.A, job.ends, span, job.a.d_inner, channel, first);
  }
}

template <Walk kWalk>
__device__ void end_walk(const Walker<kWalk>& walker, const Job& job, const Span& span, int channel) {
  const Arguments& a = job.a;
  const int first = walker.part * kEach;
  if constexpr (kWalk == Walk::outputs) {
    if (a.final_state && span.number == span.last) store_state(a.final_state, walker.h, span.sequence, a.d_inner, channel, first);
  } else {
    store_state(job.ends.states, walker.h, span.number, a.d_inner, channel, first);
    if (walker.part == 0) job.ends.dt[std::int64_t{span.number} * a.d_inner + channel] = walker.dt_sum;
  }
}

template <class T, Walk kWalk>
__global__ void __launch_bounds__(kThreads, kWalk == Walk::outputs ? 2 : 3) walk_kernel(const Job job) {
  __shared__ Tile tiles[2];
  if constexpr (kWalk != Walk::outputs) let_carrier_begin();
  const Arguments& a = job.a;
  const int block = blockIdx.x % job.blocks;
  const Span span(a, blockIdx.x / job.blocks, job.length);
  if (!span.exists) return;
  if (kWalk == Walk::state_ends && span.number == span.last) return;
  if (kWalk == Walk::adjoint_ends && span.number == span.first) return;
  const int count = (span.end - span.begin + kTokens - 1) / kTokens;

  if (threadIdx.x < kWalkers) {
    Walker<kWalk> walker(threadIdx.x);
    const int own = block * kChannels + walker.channel, channel = own < a.d_inner ? own : 0;
    begin_walk(walker, job, span, channel);
    Stops stops(a, span);
    __syncthreads();
    for (int i = 0; i < count; ++i) {
      const int begin = span.begin + i * kTokens, passed = begin - span.start;
      if (kWalk == Walk::outputs && a.kept && passed % kChunk == 0 && own < a.d_inner) {
        const std::int64_t place = span.start / kChunk + span.sequence + passed / kChunk;
        store_state(a.kept, walker.h, place, a.d_inner, channel, walker.part * kEach);
      }
      if constexpr (kWalk == Walk::outputs) {
        const int left = min(span.end - begin, kTokens);
        if (__any_sync(kWarp, stops.before(begin + left))) {
          walk_and_store(walker, tiles[i % 2], begin, left, stops, own);
        } else {
          walker.walk(tiles[i % 2]);
        }
      } else {
        walker.walk(tiles[i % 2]);
      }
      __syncthreads();
    }
    if (own < a.d_inner) end_walk(walker, job, span, channel);
    return;
  }

  Helper<T, kWalk> helper(job, span, count - 1, block, threadIdx.x - kWalkers);
  if (count > 0) helper.begin_help(tiles[0]);
  __syncthreads();
  for (int i = 0; i < count; i += 2) {
    helper.template help<0>(tiles, i);
    if (i + 1 < count) helper.template help<1>(tiles, i + 1);
  }
  if (count > 0) helper.end_help(tiles);
}

template <Walk kWalk>
void launch(const Job& job, cudaStream_t stream) {
  const std::int64_t blocks = job.blocks * span_count(job.a, job.length);
  if (blocks == 0) return;
  const auto kernel = job.a.type == DataType::bfloat16 ? walk_kernel<__nv_bfloat16, kWalk> : walk_kernel<float, kWalk>;
  const cudaLaunchConfig_t config{
      .gridDim = static_cast<unsigned>(blocks), .blockDim = kThreads, .stream = stream, .attrs = nullptr};
  launch_carrier(kernel, job, config, kWalk == Walk::outputs && job.length <= job.a.tokens);
}

// Where channels alone fill a GPU the walk is not cut: it then needs each exponential only once.
std::int64_t length_of_spans(const Arguments& a) {
  const std::int64_t blocks = (a.d_inner + kChannels - 1) / kChannels;
  return span_length(a, blocks, blocks >= 120 ? blocks : 256);
}

}  // namespace scan_walk

namespace scan_cuda {

void launch_adjoint_ends(const Arguments& a, const void* y_gradient, std::int64_t length, Ends ends, cudaStream_t stream) {
  scan_walk::launch<scan_walk::Walk::adjoint_ends>({a, y_gradient, length, ends}, stream);
}

std::int64_t forward_scratch(const Arguments& a) {
  return ends_size(a, scan_walk::length_of_spans(a));
}

void forward(const Arguments& a, cudaStream_t stream) {
  const std::int64_t length = scan_walk::length_of_spans(a);
  const scan_walk::Job job(a, nullptr, length, ends_in(a.scratch, a, length));
  if (length <= a.tokens) scan_walk::launch<scan_walk::Walk::state_ends>(job, stream);
  scan_walk::launch<scan_walk::Walk::outputs>(job, stream);
}

}  // namespace scan_cuda

}  // namespace molt::ops::scan
