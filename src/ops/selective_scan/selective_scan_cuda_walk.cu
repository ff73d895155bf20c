// The walk along the tokens, forward with outputs, or only for what it ends with. A block has 32 channels of one span: half of
// its threads walk through a tile of tokens in shared memory while the other half prepare the next tile and finish the outputs of
// the one before, so that the walkers, about one warp a scheduler where a single sequence is scanned, do nothing else.
#include "ops/selective_scan/selective_scan_cuda_walk.cuh"

namespace molt::ops::scan {

namespace scan_walk {

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

template <class T, Walk kWalk, bool kConvolves>
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

  Helper<T, kWalk, kConvolves> helper(job, span, count - 1, block, threadIdx.x - kWalkers);
  if (count > 0) helper.begin_help(tiles[0]);
  __syncthreads();
  for (int i = 0; i < count; i += 2) {
    helper.template help<0>(tiles, i);
    if (i + 1 < count) helper.template help<1>(tiles, i + 1);
  }
  if (count > 0) helper.end_help(tiles);
}

template <Walk kWalk>
auto kernel_for(const Arguments& a) {
  const bool narrow = a.type == DataType::bfloat16;
  if constexpr (kWalk != Walk::adjoint_ends) {
    if (a.taps) return narrow ? walk_kernel<__nv_bfloat16, kWalk, true> : walk_kernel<float, kWalk, true>;
  }
  return narrow ? walk_kernel<__nv_bfloat16, kWalk, false> : walk_kernel<float, kWalk, false>;
}

template <Walk kWalk>
void launch(const Job& job, cudaStream_t stream) {
  const std::int64_t blocks = job.blocks * span_count(job.a, job.length);
  if (blocks == 0) return;
  const auto kernel = kernel_for<kWalk>(job.a);
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
