// The scan's walk along the tokens (selective_scan_cuda_walk.cu): what its walkers and helpers share, and the helpers.
#pragma once
#include <type_traits>

#include "ops/selective_scan/selective_scan_cuda.cuh"

namespace molt::ops::scan::scan_walk {

using namespace scan_cuda;

enum class Walk { outputs, state_ends, adjoint_ends };

constexpr int kChannels = 32, kTokens = 32;          // of a block; of a tile
constexpr int kEach = 4, kSharers = kState / kEach;  // states of a walker; walkers of a channel
constexpr int kWalkers = kChannels * kSharers, kHelpers = 128, kThreads = kWalkers + kHelpers;
static_assert(kHelpers == 4 * kTokens);                                                          // announce: four threads a token
constexpr int kVector = 4, kRows = kHelpers / (kChannels / kVector), kRounds = kTokens / kRows;  // how helpers split a tile

// What walkers read of a tile's tokens, and the parts of y that they leave. Rows past the end are zeros, which leave states as
// they are. The padding keeps what a warp reads or writes at once on different banks.
template <Walk kWalk>
struct alignas(16) Tile {
  // Of two tokens dt, and what a row is multiplied by: dt * x, backwards the gradient before skip and gate.
  struct alignas(16) Steps {
    float2 of[2];
  } steps[kTokens / 2][kChannels + kChannels / 8];
  float into[kTokens][kChannels];  // B, backwards C: added to the states
};
template <>
struct Tile<Walk::outputs> : Tile<Walk::state_ends> {
  float out[kTokens][kChannels];            // C: what y sums the states by
  float y[kTokens][kWalkers / 32][32 + 8];  // a lane's share of y
};
// Where the steps of a channel are in their row.
__device__ inline int step_place(int channel) {
  return channel + channel / 8;
}

// What one half of a block waits for and the other half announces without waiting: the next tile is ready; the one before it has
// been walked through (for the first tile: has begun to be). They take turns, so that a barrier each is enough.
enum class Signal { ready = 1, walked = 2 };
template <Signal kSignal>
__device__ inline void arrive() {
  asm volatile("bar.arrive %0, %1;" ::"n"(static_cast<int>(kSignal)), "n"(kThreads) : "memory");
}
template <Signal kSignal>
__device__ inline void await() {
  asm volatile("bar.sync %0, %1;" ::"n"(static_cast<int>(kSignal)), "n"(kThreads) : "memory");
}

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

// Four parameters, which need not begin where vectors do, or zeros.
template <class T = float>
__device__ Packed<float, kVector> parameters(const void* from, int first) {
  float values[kVector];
#pragma unroll
  for (int i = 0; i < kVector; ++i) values[i] = from ? static_cast<float>(as<T>(from)[first + i]) : 0.0f;
  return Packed<float, kVector>::of(values);
}

// The convolution in front of the scan, of a helper's channels.
struct Convolution {
  Packed<float, kTaps> taps[kVector];
  Packed<float, kVector> bias;

  __device__ void load(const Arguments& a, int channel) {
    a.taps_type == DataType::bfloat16 ? load_as<__nv_bfloat16>(a, channel) : load_as<float>(a, channel);
  }
  template <class T>
  __device__ void load_as(const Arguments& a, int channel) {
    bias = parameters<T>(a.taps_bias, channel);
#pragma unroll
    for (int i = 0; i < kVector; ++i) taps[i] = parameters<T>(a.taps, (channel + i) * kTaps);
  }

  // A token's, from the rows up to it.
  template <class T>
  __device__ Packed<T, kVector> operator()(const Packed<T, kVector>* rows) const {
    float result[kVector];
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      float sum = bias[i];
#pragma unroll
      for (int k = 0; k < kTaps; ++k) sum += taps[i][k] * rows[k][i];
      result[i] = sum * sigmoid(sum);
    }
    return Packed<T, kVector>::of(result);
  }
};
struct NoConvolution {
  __device__ void load(const Arguments&, int) {}
};

// A thread's columns of a matrix of tokens. (Finding rows as the gradients' kernel does costs a register too many: 2 % of the
// time.)
template <class T>
struct Columns {
  using Four = Packed<T, kVector>;
  std::uint64_t first = 0;  // address in global memory
  unsigned stride = 0;      // bytes from row to row

  __device__ Columns(const Rows& rows, int column)
      : first(__cvta_generic_to_global(as<T>(rows.data) + column)), stride(rows.stride * sizeof(T)) {
    asm("" : "+l"(first));  // else the compiler adds up again, for each access, what it consists of
  }
  __device__ std::uint64_t at(int t) const { return first + std::uint64_t{static_cast<unsigned>(t)} * stride; }
  __device__ void write(int t, const Four& values) const { *static_cast<Four*>(__cvta_global_to_generic(at(t))) = values; }
  __device__ void announce(int t) const { asm volatile("prefetch.global.L2 [%0];" ::"l"(at(t))); }
  __device__ Four read(int t) const { return *static_cast<const Four*>(__cvta_global_to_generic(at(t))); }
};

// One of the threads that fill tiles and finish outputs: four channels of kRounds tokens in a row.
template <class T, Walk kWalk, bool kConvolves>
struct Helper {
  using Four = Packed<T, kVector>;
  static constexpr bool kBackwards = kWalk == Walk::adjoint_ends, kOutputs = kWalk == Walk::outputs;
  static constexpr int kBefore = kConvolves ? kTaps - 1 : 0;

  const Job& job;
  const Span& span;
  Tile<kWalk>* tiles;
  int first, local;  // token in a tile; channel in the block
  int channel;
  bool active;
  Columns<T> dt, value, z, into, out, y, convolved;
  Packed<float, kVector> bias, D;
  std::conditional_t<kConvolves, Convolution, NoConvolution> convolution;
  // What is on its way from memory: a tile's rows (values: x, with kBefore rows before, or backwards the gradient of y; other: C
  // of outputs, backwards z), and z of the outputs to be finished.
  struct Raw {
    Four dt[kRounds], into[kRounds], value[kBefore + kRounds], other[kRounds];
  } raw;
  Four gates[kRounds] = {};
  Four x[kRounds] = {}, last_x[kRounds] = {};  // values of two tiles, up to when their outputs are finished

  __device__ Helper(const Job& job, const Span& span, Tile<kWalk>* tiles, int block, int thread)
      : job(job),
        span(span),
        tiles(tiles),
        first(thread / (kChannels / kVector) * kRounds),
        local(thread % (kChannels / kVector) * kVector),
        channel(block * kChannels + local < job.a.d_inner ? block * kChannels + local : 0),
        active(block * kChannels + local < job.a.d_inner),
        dt(job.in.dt, channel),
        value(kBackwards ? job.in.y_gradient : job.in.x,
              kBackwards || (!kConvolves && job.a.x_columns == job.a.d_inner) ? channel : shared_channel(job.a, channel)),
        z(job.in.z, channel),
        into(kBackwards ? job.in.C : job.in.B, kBackwards ? channel : shared_channel(job.a, channel)),
        out(job.in.C, channel),
        y({job.a.y, static_cast<int>(job.a.d_inner)}, channel),
        convolved({job.a.convolved, static_cast<int>(job.a.d_inner)}, channel) {}

  // The column of B (and of x) that a channel has.
  __device__ static int shared_channel(const Arguments& a, int channel) {
    return shared_column(a, channel / kState) + channel % kState;
  }
  // Row r of the thread's in a tile: backwards, tiles and their rows count from the end.
  __device__ int token(int tile, int r) const {
    const int passed = tile * kTokens + first + r;
    return kBackwards ? span.end - 1 - passed : span.begin + passed;
  }
  __device__ bool inside(int t) const { return kBackwards ? t >= span.begin : t < span.end; }
  // One to read in its place where there is none: without branches all loads are on their way together.
  __device__ int readable(int t) const { return kBackwards ? max(t, span.begin) : min(t, span.end - 1); }

  // Has a tile's rows on their way to the second cache, from which they come in time to be used a tile after fetch. Each thread
  // names a row by whichever column is its own: as much as the block has of the row comes at once.
  __device__ void announce(int tile) const {
    const int t = readable(token(tile, static_cast<int>(threadIdx.x % 32) - first));
    switch ((threadIdx.x - kWalkers) / 32) {
      case 0:
        return dt.announce(t);
      case 1:
        if constexpr (kWalk != Walk::state_ends) out.announce(t);
        return;
      case 2:
        if constexpr (kWalk != Walk::state_ends) z.announce(t);
        return;
      default:
        value.announce(t), into.announce(t);
    }
  }
  // Has them on their way to registers.
  __device__ void fetch(int tile) {
#pragma unroll
    for (int r = 0; r < kRounds; ++r) {
      const int t = readable(token(tile, r));
      raw.dt[r] = dt.read(t);
      raw.into[r] = into.read(t);
      raw.value[kBefore + r] = value.read(t);
      if constexpr (kBackwards) raw.other[r] = z.read(t);
      if constexpr (kOutputs) raw.other[r] = out.read(t);
    }
#pragma unroll
    for (int k = 0; k < kBefore; ++k) raw.value[k] = value.read(max(readable(token(tile, k - kBefore)), span.start));
  }
  __device__ void fetch_gates(int tile) {
#pragma unroll
    for (int r = 0; r < kRounds; ++r) gates[r] = z.read(readable(token(tile, r)));
  }

  __device__ float gate(float value, float z) const {
    const float gated = value * (z * sigmoid(z));
    return job.in.gated ? gated : value;
  }

  // The values of a tile's tokens; convolved ones are kept for the backward pass.
  __device__ void take_values(Four (&to)[kRounds], int tile) {
    if constexpr (kConvolves) {
#pragma unroll
      for (int k = 0; k < kBefore; ++k) {  // tokens of other sequences have no part
        if (token(tile, k - kBefore) < span.start) raw.value[k] = {};
      }
#pragma unroll
      for (int r = 0; r < kRounds; ++r) to[r] = convolution(raw.value + r);
      if (kOutputs && job.a.convolved && active) {
#pragma unroll
        for (int r = 0; r < kRounds; ++r) {
          if (const int t = token(tile, r); inside(t)) convolved.write(t, to[r]);
        }
      }
    } else {
#pragma unroll
      for (int r = 0; r < kRounds; ++r) to[r] = raw.value[r];
    }
  }

  __device__ void prepare(Four (&x)[kRounds], int tile) {
    take_values(x, tile);
    Tile<kWalk>& to = tiles[tile % 2];
    typename Tile<kWalk>::Steps steps[kVector];
#pragma unroll
    for (int r = 0; r < kRounds; ++r) {
      const bool valid = inside(token(tile, r)), driven = valid && (!kBackwards || job.in.driven);
      const Four dts = valid ? raw.dt[r] : Four::of({-INFINITY, -INFINITY, -INFINITY, -INFINITY});
      const Four values = driven ? x[r] : Four{};
      const Four other = raw.other[r];
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        const float dt = softplus(dts[i] + bias[i]);
        steps[i].of[r] = {dt, kBackwards ? gate(values[i], other[i]) : dt * values[i]};
      }
      *reinterpret_cast<float4*>(&to.into[first + r][local]) = raw.into[r].wide();
      if constexpr (kOutputs) *reinterpret_cast<float4*>(&to.out[first + r][local]) = other.wide();
    }
#pragma unroll
    for (int i = 0; i < kVector; ++i) to.steps[first / kRounds][step_place(local) + i] = steps[i];
  }

  // The sums over states that the walkers have left.
  struct Sums {
    float of[kRounds][kVector];
  };
  __device__ Sums add_up(const Tile<Walk::outputs>& tile) const {
    Sums sums;
#pragma unroll
    for (int r = 0; r < kRounds; ++r) {
      const auto share = [&](int part) {
        return *reinterpret_cast<const Packed<float, kVector>*>(&tile.y[first + r][local / 8][part * 8 + local % 8]);
      };
      const Packed<float, kVector> shares[kSharers] = {share(0), share(1), share(2), share(3)};
#pragma unroll
      for (int i = 0; i < kVector; ++i) sums.of[r][i] = (shares[0][i] + shares[1][i]) + (shares[2][i] + shares[3][i]);
    }
    return sums;
  }
  // Skip, gate, and the output's rows; there is no tile before the first.
  __device__ void finish(const Sums& sums, const Four (&x)[kRounds], int tile) const {
#pragma unroll
    for (int r = 0; r < kRounds; ++r) {
      float result[kVector];
#pragma unroll
      for (int i = 0; i < kVector; ++i) result[i] = gate(sums.of[r][i] + D[i] * x[r][i], gates[r][i]);
      if (const int t = token(tile, r); active && tile >= 0 && inside(t)) y.write(t, Four::of(result));
    }
  }

  __device__ void load_parameters() {
    const Arguments& a = job.a;
    bias = a.dt_bias_type == DataType::bfloat16 ? parameters<__nv_bfloat16>(a.dt_bias, channel) : parameters(a.dt_bias, channel);
    D = parameters(a.D, channel);
    convolution.load(a, channel);
  }

  __device__ void begin_help() {
    fetch(0);
    load_parameters();  // while the first rows are on their way
    prepare(x, 0);
    arrive<Signal::ready>();
    fetch(1);
    announce(2);
    announce(3);
  }

  // What there is to do while tile i is walked through. Walkers wait for the next tile: what can be done later is.
  __device__ void help(int i) {
    Four next_x[kRounds];
    announce(i + 4);
    await<Signal::walked>();
    prepare(next_x, i + 1);
    if constexpr (kOutputs) {
      const Sums sums = add_up(tiles[(i + 1) % 2]);
      arrive<Signal::ready>();
      fetch(i + 2);
      finish(sums, last_x, i - 1);
      fetch_gates(i);
#pragma unroll
      for (int r = 0; r < kRounds; ++r) last_x[r] = x[r], x[r] = next_x[r];
    } else {
      arrive<Signal::ready>();
      fetch(i + 2);
    }
  }

  __device__ void end_help(int last) const {
    await<Signal::walked>();
    if constexpr (kOutputs) finish(add_up(tiles[last % 2]), last_x, last);
  }
};

}  // namespace molt::ops::scan::scan_walk
