// The walk along the tokens, forward with outputs, or only for what it ends with. A block has 32 channels of one span: half of
// its threads walk through a tile of tokens in shared memory while the other half prepare the next tile (convolving x on the way
// where asked to) and finish the outputs of the one before, so that the walkers, about one warp a scheduler where a single
// sequence is scanned, do nothing else: they wait only for a tile that is late, and leave the sums over states to the others.
#include <climits>

#include "ops/selective_scan/selective_scan_cuda_walk.cuh"

namespace molt::ops::scan {

namespace scan_walk {

// One thread's states on their way. A warp has the channels of 32 / kSharers lanes beside each other.
template <Walk kWalk>
struct Walker {
  static constexpr int kAcross = 32 / kSharers, kGroup = 4;
  using States = Packed<float, kEach>;

  float A[kEach], h[kEach] = {}, dt_sum = 0.0f;
  int warp, lane, channel, part,
      column;  // channel in the block; which of its walkers; column of its group's row where its states begin

  __device__ explicit Walker(int thread)
      : warp(thread / 32),
        lane(thread % 32),
        channel(warp * kAcross + lane % kAcross),
        part(lane / kAcross),
        column(channel / kState * kState + part * kEach) {}

  struct Row {
    float2 step;
    States into, out;
  };
  __device__ Row read(const Tile<kWalk>& tile, int j) const {
    Row row;
    row.step = tile.steps[j / 2][step_place(channel)].of[j % 2];
    row.into = *reinterpret_cast<const States*>(&tile.into[j][column]);
    if constexpr (kWalk == Walk::outputs) row.out = *reinterpret_cast<const States*>(&tile.out[j][column]);
    return row;
  }
  struct Group {
    Row rows[kGroup];
  };
  __device__ Group read_group(const Tile<kWalk>& tile, int j) const {
    Group group;
#pragma unroll
    for (int r = 0; r < kGroup; ++r) group.rows[r] = read(tile, j + r);
#pragma unroll
    for (int r = 0; r < kGroup; r += 2) {
      const auto steps = tile.steps[(j + r) / 2][step_place(channel)];
      group.rows[r].step = steps.of[0], group.rows[r + 1].step = steps.of[1];
    }
    return group;
  }

  // One token, and the lane's share of its y.
  __device__ void advance(const Row& row, Tile<kWalk>& tile, int j) {
    float y = 0.0f;
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      const float decay = exp2_fast(row.step.x * A[k]), input = row.step.y * row.into[k];
      h[k] = kWalk == Walk::adjoint_ends ? decay * (h[k] + input) : decay * h[k] + input;
      if constexpr (kWalk == Walk::outputs) y += h[k] * row.out[k];
    }
    if constexpr (kWalk == Walk::outputs) {
      tile.y[j][warp][lane] = y;
    } else {
      dt_sum += row.step.x;
    }
  }

  // A whole tile, whose first tokens are read already; those of the next tile are read before the last of this one are used. The
  // wait for it stands earlier still: what follows a barrier at once is not read ahead of it.
  __device__ void walk(Group& group, Tile<kWalk>& tile, const Tile<kWalk>& next) {
#pragma unroll
    for (int j = 0; j < kTokens; j += kGroup) {
      const bool over = j + kGroup == kTokens;
      if (j + 2 * kGroup == kTokens) await<Signal::ready>();
      const Group ahead = read_group(over ? next : tile, over ? 0 : j + kGroup);
#pragma unroll
      for (int r = 0; r < kGroup; ++r) advance(group.rows[r], tile, j + r);
      group = ahead;
    }
  }
};

// The walkers' part of a span with outputs: states that are kept or asked for stand between tokens.
struct Stops {
  const Arguments& a;
  int wanted = -1, position = -1;  // the next one asked for

  __device__ Stops(const Arguments& a, const Span& span) : a(a) {
    while (position < span.begin) take();
  }
  __device__ void take() {
    ++wanted;
    position = wanted < a.position_count ? static_cast<int>(a.positions[wanted]) : INT_MAX;
  }
};

// The first `count` tokens of a tile with positions asked for, one by one.
__device__ void walk_and_store(Walker<Walk::outputs>& walker, Tile<Walk::outputs>& tile, int begin, int count, Stops& stops,
                               int channel) {
  for (int j = 0; j < count; ++j) {
    walker.advance(walker.read(tile, j), tile, j);
    if (stops.position > begin + j) continue;
    if (channel < stops.a.d_inner)
      store_state(stops.a.states, walker.h, stops.wanted, stops.a.d_inner, channel, walker.part * kEach);
    stops.take();
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

// `own` is the thread's channel, or past the last.
template <Walk kWalk>
__device__ void walk_span(Walker<kWalk>& walker, Tile<kWalk>* tiles, int count, const Job& job, const Span& span, int own) {
  const Arguments& a = job.a;
  const int channel = own < a.d_inner ? own : 0;
  begin_walk(walker, job, span, channel);
  Stops stops(a, span);
  typename Walker<kWalk>::Group group;
  if (count > 0) {
    await<Signal::ready>();
    arrive<Signal::walked>();
    group = walker.read_group(tiles[0], 0);
  }
  for (int i = 0; i < count; ++i) {
    const int begin = span.begin + i * kTokens, passed = begin - span.start;
    Tile<kWalk>&tile = tiles[i % 2], &next = tiles[(i + 1) % 2];
    if (kWalk == Walk::outputs && a.kept && passed % kChunk == 0 && own < a.d_inner) {
      const std::int64_t place = span.start / kChunk + span.sequence + passed / kChunk;
      store_state(a.kept, walker.h, place, a.d_inner, channel, walker.part * kEach);
    }
    bool stopped = false;
    if constexpr (kWalk == Walk::outputs) {
      const int end = min(span.end, begin + kTokens);
      stopped = stops.position < end;
      if (stopped) {
        walk_and_store(walker, tile, begin, end - begin, stops, own);
        await<Signal::ready>();
        group = walker.read_group(next, 0);
      }
    }
    if (!stopped) walker.walk(group, tile, next);
    arrive<Signal::walked>();
  }
  if (own < a.d_inner) end_walk(walker, job, span, channel);
}

// Of a multiprocessor at once, as far as registers go.
template <class T, Walk kWalk, bool kConvolves>
constexpr int kBlocks = kWalk == Walk::adjoint_ends    ? 3
                        : kConvolves && sizeof(T) == 4 ? 1
                                                       : 2;

template <class T, Walk kWalk, bool kConvolves>
__global__ void __launch_bounds__(kThreads, kBlocks<T, kWalk, kConvolves>) walk_kernel(const Job job) {
  extern __shared__ float4 memory[];
  Tile<kWalk>* tiles = reinterpret_cast<Tile<kWalk>*>(memory);
  const Arguments& a = job.a;
  if (kWalk != Walk::outputs || !is_cut(a, job.length)) cuda::await_previous();
  if constexpr (kWalk != Walk::outputs) cuda::let_next_begin();
  const int block = blockIdx.x % job.blocks;
  const Span span(a, blockIdx.x / job.blocks, job.length);
  if (!span.exists) return;
  if (kWalk == Walk::state_ends && span.number == span.last) return;
  if (kWalk == Walk::adjoint_ends && span.number == span.first) return;
  const int count = (span.end - span.begin + kTokens - 1) / kTokens;

  if (threadIdx.x < kWalkers) {
    Walker<kWalk> walker(threadIdx.x);
    walk_span(walker, tiles, count, job, span, block * kChannels + walker.channel);
  } else if (count > 0) {
    Helper<T, kWalk, kConvolves> helper(job, span, tiles, block, threadIdx.x - kWalkers);
    helper.begin_help();
#pragma unroll 1
    for (int i = 0; i < count; ++i) helper.help(i);
    helper.end_help(count - 1);
  }
}

template <class T, Walk kWalk, bool kConvolves>
void launch_as(const Job& job, std::int64_t blocks, cudaStream_t stream) {
  constexpr int kBytes = 2 * static_cast<int>(sizeof(Tile<kWalk>));
  const auto kernel = walk_kernel<T, kWalk, kConvolves>;
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  cuda::launch_behind(kernel, static_cast<unsigned>(blocks), kThreads, kBytes, stream, job);
}

template <Walk kWalk>
void launch(const Job& job, cudaStream_t stream) {
  const std::int64_t blocks = job.blocks * span_count(job.a, job.length);
  if (blocks == 0) return;
  const bool narrow = job.a.type == DataType::bfloat16;
  if constexpr (kWalk != Walk::adjoint_ends) {
    if (job.a.taps)
      return narrow ? launch_as<__nv_bfloat16, kWalk, true>(job, blocks, stream)
                    : launch_as<float, kWalk, true>(job, blocks, stream);
  }
  narrow ? launch_as<__nv_bfloat16, kWalk, false>(job, blocks, stream) : launch_as<float, kWalk, false>(job, blocks, stream);
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
  if (is_cut(a, length)) scan_walk::launch<scan_walk::Walk::state_ends>(job, stream);
  scan_walk::launch<scan_walk::Walk::outputs>(job, stream);
}

}  // namespace scan_cuda

}  // namespace molt::ops::scan
