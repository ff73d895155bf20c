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

// The convolution in front of the scan, of a helper's channels.
struct Convolution {
  float taps[kVector][kTaps], bias[kVector];

  __device__ Convolution(const Arguments& a, int channel) {
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      bias[i] = a.taps_bias ? as<float>(a.taps_bias)[channel + i] : 0.0f;
#pragma unroll
      for (int k = 0; k < kTaps; ++k) taps[i][k] = as<float>(a.taps)[(channel + i) * kTaps + k];
    }
  }

  // From the rows up to a token: what the convolution comes to.
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
  __device__ NoConvolution(const Arguments&, int) {}
};

// One of the threads that fill tiles and finish outputs: four channels of kRounds tokens in a row.
template <class T, Walk kWalk, bool kConvolves>
struct Helper {
  using Four = Packed<T, kVector>;
  static constexpr bool kBackwards = kWalk == Walk::adjoint_ends;
  static constexpr int kAhead = 1, kBefore = kConvolves ? kTaps - 1 : 0;

  const Job& job;
  const Span& span;
  int last, first, local;           // last tile; first token in a tile; first channel in the block
  int channel, x_column, B_column;  // the last two: where x and B of these channels begin
  bool active;
  float bias[kVector], D[kVector];
  std::conditional_t<kConvolves, Convolution, NoConvolution> convolution;
  // What is on its way from memory, of kAhead tiles in turns. value: x, backwards the gradient of y; with kBefore rows before.
  struct Raw {
    Four dt[kRounds], value[kBefore + kRounds], z[kRounds], into[kRounds], out[kRounds];
  } raw[kAhead];
  Four gates[kAhead][kRounds];  // z of tiles whose outputs are to be finished
  Four x[2][kRounds];           // of two tiles, up to when their outputs are finished

  __device__ Helper(const Job& job, const Span& span, int last, int block, int thread)
      : job(job),
        span(span),
        last(last),
        first(thread / (kChannels / kVector) * kRounds),
        local(thread % (kChannels / kVector) * kVector),
        channel(block * kChannels + local < job.a.d_inner ? block * kChannels + local : 0),
        active(block * kChannels + local < job.a.d_inner),
        convolution(job.a, channel) {
    const Arguments& a = job.a;
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
    Raw& to = raw[kSlot % kAhead];
    const int t = begin(tile);
#pragma unroll
    for (int r = 0; r < kRounds; ++r) {
      const int j = readable(tile, first + r);
      to.dt[r] = in.dt.read<T, kVector>(t, j, channel);
      to.into[r] = kBackwards ? in.C.read<T, kVector>(t, j, channel) : in.B.read<T, kVector>(t, j, B_column);
      if constexpr (kBackwards) to.z[r] = in.z.read<T, kVector>(t, j, channel);
      if constexpr (kBackwards) to.value[r] = in.y_gradient.read<T, kVector>(t, j, channel);
      if constexpr (kWalk == Walk::outputs) to.out[r] = in.C.read<T, kVector>(t, j, channel);
    }
    if constexpr (!kBackwards) {
#pragma unroll
      for (int r = 0; r < kBefore + kRounds; ++r) {
        const int j = max(readable(tile, first + r - kBefore), span.start - t);
        to.value[r] = in.x.read<T, kVector>(t - kBefore, j + kBefore, x_column);
      }
    }
  }

  __device__ float gate(float value, float z) const {
    const float gated = value * z * sigmoid(z);
    return job.in.gated ? gated : value;
  }

  // x of the thread's tokens, for prepare and finish.
  template <int kSlot>
  __device__ void take_x(int tile) {
    Four* to = x[kSlot % 2];
    Raw& from = raw[kSlot % kAhead];
    if constexpr (kConvolves) {
      const int before = span.start - begin(tile) - first;  // tokens of other sequences have no part
#pragma unroll
      for (int k = 0; k < kBefore; ++k) {
        if (k - kBefore < before) from.value[k] = {};
      }
#pragma unroll
      for (int r = 0; r < kRounds; ++r) to[r] = convolution(from.value + r);
      if constexpr (kWalk == Walk::outputs) {
        if (job.a.convolved && active) keep_x(to, tile);
      }
    } else {
#pragma unroll
      for (int r = 0; r < kRounds; ++r) to[r] = from.value[r];
    }
  }
  __device__ void keep_x(const Four* from, int tile) const {
    const Rows rows{job.a.convolved, static_cast<int>(job.a.d_inner)};
#pragma unroll
    for (int r = 0; r < kRounds; ++r) {
      if (inside(tile, first + r)) rows.write(begin(tile), first + r, channel, from[r]);
    }
  }

  template <int kSlot>
  __device__ void prepare(Tile& to, int tile) {
    if constexpr (!kBackwards) take_x<kSlot>(tile);
    const Raw& from = raw[kSlot % kAhead];
#pragma unroll
    for (int r = 0; r < kRounds; ++r) {
      const Four& values = kBackwards ? from.value[r] : x[kSlot % 2][r];
      const int j = first + r;
      const bool valid = inside(tile, j), driven = valid && (!kBackwards || job.in.driven);
      float2 step[kVector];
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        const float dt = softplus(from.dt[r][i] + bias[i]), value = values[i];
        const float drive = kBackwards ? gate(value, from.z[r][i]) : dt * value;
        step[i] = {valid ? dt : 0.0f, driven ? drive : 0.0f};
      }
      float4* steps = reinterpret_cast<float4*>(&to.step[j][local]);
      steps[0] = {step[0].x, step[0].y, step[1].x, step[1].y};
      steps[1] = {step[2].x, step[2].y, step[3].x, step[3].y};
      *reinterpret_cast<float4*>(&to.into[j][local]) = from.into[r].wide();
      if constexpr (kWalk == Walk::outputs) *reinterpret_cast<float4*>(&to.out[j][local]) = from.out[r].wide();
    }
  }

  template <int kSlot>
  __device__ void fetch_gates(int tile) {
    tile = min(tile, last);
#pragma unroll
    for (int r = 0; r < kRounds; ++r)
      gates[kSlot % kAhead][r] = job.in.z.read<T, kVector>(begin(tile), readable(tile, first + r), channel);
  }

  // Skip, gate, and the output's rows.
  template <int kSlot>
  __device__ void finish(const Tile& from, int tile) const {
    const Rows y_rows{job.a.y, static_cast<int>(job.a.d_inner)};
#pragma unroll
    for (int r = 0; r < kRounds; ++r) {
      const int j = first + r;
      const float4 sums = *reinterpret_cast<const float4*>(&from.y[j][local]);
      const float y[kVector] = {sums.x, sums.y, sums.z, sums.w};
      float result[kVector];
#pragma unroll
      for (int i = 0; i < kVector; ++i) result[i] = gate(y[i] + D[i] * x[kSlot % 2][r][i], gates[kSlot % kAhead][r][i]);
      if (active && inside(tile, j)) y_rows.write(begin(tile), j, channel, Four::of(result));
    }
  }

  __device__ void begin_help(Tile& tile) {
    fetch<0>(0);
    if constexpr (kAhead > 1) fetch<1>(1);
    prepare<0>(tile, 0);
    fetch<kAhead>(kAhead);
    if constexpr (kAhead > 1 && kWalk == Walk::outputs) fetch_gates<0>(0);
  }

  // What there is to do while tile i, of those with i % 2 == kSlot, is walked through.
  template <int kSlot>
  __device__ void help(Tile (&tiles)[2], int i) {
    Tile& other = tiles[1 - kSlot];
    if constexpr (kWalk == Walk::outputs) {
      if (i > 0) finish<kSlot + 1>(other, i - 1);
      fetch_gates<kSlot - 1 + kAhead>(i - 1 + kAhead);
    }
    prepare<kSlot + 1>(other, i + 1);
    fetch<kSlot + 1>(i + 1 + kAhead);
    __syncthreads();
  }

  __device__ void end_help(const Tile (&tiles)[2]) const {
    if constexpr (kWalk == Walk::outputs) {
      last % 2 == 0 ? finish<0>(tiles[0], last) : finish<1>(tiles[1], last);
    }
  }
};

}  // namespace molt::ops::scan::scan_walk
