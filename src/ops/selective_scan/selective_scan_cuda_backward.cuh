// The walk back of the scan's gradients, as selective_scan_cuda_backward.cu describes it: how work falls to blocks, what they
// have in shared memory, and the threads that have four states of a channel each.
#pragma once
#include "ops/selective_scan/selective_scan_cuda.cuh"

namespace molt::ops::scan {

namespace scan_adjoint {

using namespace scan_cuda;

constexpr int kEach = 4;  // states of a lane
constexpr int kGroups = 4, kChannels = kGroups * kState, kThreads = kChannels * kState / kEach, kWarps = kThreads / 32;
constexpr int kStep = 8, kTokens = static_cast<int>(kChunk);  // tokens whose states are in registers; of a tile
constexpr int kVector = 4, kAcross = kChannels / kVector, kEdges = kStep * kAcross;  // how tokens are read and gradients written
constexpr int kPadded = kChannels + 8;  // keeps four rows of 8 channels on different banks

template <class T>
struct Shared {
  float2 step[kTokens][kChannels];  // dt, dt * x
  float B[kTokens][kChannels];      // rows of the block's groups of B, beside each other
  float4 states[kTokens / kStep][kThreads];
  float gy[kStep][kChannels], C[kStep][kChannels];  // gy: the gradient before skip and gate
  float y[kStep][kPadded], gu[kStep][kPadded], gdt[kStep][kPadded];
  float sums[kWarps][kStep][2 * kState + 4];  // over a warp's channels, for B and for C; padded likewise
  Packed<T, kVector> raw[2][4][kEdges];       // of two steps in turns, what is read of a token: see Edge
  float4 totals[2][kEdges];                   // shares of the gradients of dt_bias and of D
  float D[kChannels];
};

// How groups of channels fall to blocks. Where more than kGroups share rows of B, several blocks have a share of them each.
struct Split {
  int repeat = 1, shares = 1;                // of all the groups that share a row of B
  int together = 1, groups = 1, blocks = 1;  // groups of a block that share a row of B; groups of a block at most

  explicit Split(const Arguments& a) : repeat(static_cast<int>(a.d_inner / a.d_xb)) {
    const int all = static_cast<int>(a.d_inner / kState);
    shares = (repeat + kGroups - 1) / kGroups;
    together = (repeat + shares - 1) / shares;
    groups = shares == 1 ? kGroups / repeat * repeat : together;
    blocks = shares == 1 ? (all + groups - 1) / groups : all / repeat * shares;
  }
};

struct Job {
  Arguments a;
  Inputs in;
  Gradients to;
  Split split;
  int length = 0;  // of a span
  Ends ends;
  Rows gx, gdt, gB, gC, gz;

  Job(const Arguments& a, const Gradients& to, const Split& split, std::int64_t length, Ends ends)
      : a(a),
        in(a, to.y),
        to(to),
        split(split),
        length(static_cast<int>(length)),
        ends(ends),
        gx{to.x, static_cast<int>(a.x_columns)},
        gdt{to.dt, static_cast<int>(a.d_inner)},
        gB{to.B, static_cast<int>(a.d_xb)},
        gC{to.C, static_cast<int>(a.d_inner)},
        gz{to.z, static_cast<int>(a.d_inner)} {}
};

// A block's groups, kTogether of which share a row of B.
template <int kTogether>
struct Part {
  int first, share, B_column;  // first group; which of the shares; where its rows of B begin
  int channels, columns;       // of B and, unless repeated, of x

  __device__ Part(const Job& job, int block) {
    const Split& split = job.split;
    share = block % split.shares;
    first = split.shares == 1 ? block * split.groups : block / split.shares * split.repeat + share * split.groups;
    const int left = split.shares == 1 ? static_cast<int>(job.a.d_inner / kState) - first : split.repeat - share * split.groups;
    const int groups = min(split.groups, left);
    channels = groups * kState;
    columns = (groups + kTogether - 1) / kTogether * kState;
    B_column = shared_column(job.a, first);
  }
  __device__ static unsigned row(unsigned channel) {
    return channel / kState / kTogether * kState;
  }  // its row of B, among the block's
};

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

// Sums over four lanes by a product with a column of ones: `low` of lanes 4i … 4i + 3 is added to (i, column) of an 8 x 8 matrix,
// of which lane l holds (l / 4, l % 4 * 2) and the one right of it in sum[0] and sum[1]; `high` likewise to sum[2] and sum[3].
__device__ inline void add_lanes(float (&sum)[4], std::uint32_t ones, float low, float high) {
  asm("mma.sync.aligned.m16n8k4.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(__float_as_uint(low)), "r"(__float_as_uint(high)), "r"(ones));
}

// The operands of that product lose all but 10 bits of their fractions. Products of float32 tokens are given in two parts, so
// that nothing is lost; sums of those of bfloat16 tokens get a factor that makes the error zero on average.
template <class T>
constexpr bool kExact = sizeof(T) == 4;
template <class T>
constexpr float kCentred = kExact<T> ? 1.0f : 1.0f + 0.000352f;
__device__ inline float lost(float value) {
  return value - __uint_as_float(__float_as_uint(value) & ~0x1fffu);
}

// The thread's number, read anew each time: what follows from it is found again where it is used, because registers are what the
// walk back has least of. (Unsigned, so that divisions by powers of two are single shifts.)
__device__ inline unsigned thread_number() {
  unsigned number;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(number));
  return number;
}

// A thread's place among those that walk.
template <int kTogether>
struct Lane {
  unsigned thread = thread_number(), lane = thread % 32, channel = thread / 32 * 8 + lane % 8, quarter = lane / 8;
  unsigned row = Part<kTogether>::row(channel) + quarter * kEach;  // where its states begin in rows of B
  unsigned column = channel / kState * kState + quarter * kEach;   // and of C
};

// A thread's four states of one channel.
template <class T, int kTogether>
struct Adjoint {
  using Place = Lane<kTogether>;

  Shared<T>& shared;
  float A[kEach], g[kEach] = {}, gA[kEach] = {};

  __device__ explicit Adjoint(Shared<T>& shared) : shared(shared) {}

  // The state after token j of the tile, and the decay.
  __device__ void advance(const Place& at, float (&after)[kEach], float (&decay)[kEach], const float (&before)[kEach],
                          int j) const {
    const float2 step = shared.step[j][at.channel];
    const float4 row4 = *reinterpret_cast<const float4*>(&shared.B[j][at.row]);
    const float B[kEach] = {row4.x, row4.y, row4.z, row4.w};
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      decay[k] = exp2_fast(step.x * A[k]);
      after[k] = decay[k] * before[k] + step.y * B[k];
    }
  }

  // The states at every kStep-th token of a tile of `count` tokens, from the one before it.
  __device__ void find_states(float (&h)[kEach], int count) {
    const Place at;
    for (int j = 0; j < count; j += kStep) {
      shared.states[j / kStep][at.thread] = {h[0], h[1], h[2], h[3]};
      if (j + kStep >= count) return;
#pragma unroll
      for (int i = 0; i < kStep; ++i) {
        float decay[kEach];
        advance(at, h, decay, h, j + i);
      }
    }
  }

  // Back along the tokens first … first + kStep - 1 of the tile. Leaves y, the gradients of dt * x and of dt / ln 2 as far as it
  // comes from decays, and the sums for B and C.
  __device__ void go_back(int first) {
    const Place at;
    float h[kStep + 1][kEach], late[kStep / 2][kEach], decay[kEach];  // late: decays of the last tokens; registers end there
    const float4 known = shared.states[first / kStep][at.thread];
    h[0][0] = known.x, h[0][1] = known.y, h[0][2] = known.z, h[0][3] = known.w;
#pragma unroll
    for (int j = 0; j < kStep; ++j) advance(at, h[j + 1], j < kStep / 2 ? decay : late[j - kStep / 2], h[j], first + j);

    float sums[2][2][4] = {};  // of B and C, for the first and the last two states
    float y[4], gu[4], gdt[4];
#pragma unroll
    for (int j = kStep - 1; j >= 0; --j) {
      const float2 step = shared.step[first + j][at.channel];
      const float gy = shared.gy[j][at.channel];
      const float4 B4 = *reinterpret_cast<const float4*>(&shared.B[first + j][at.row]);
      const float4 C4 = *reinterpret_cast<const float4*>(&shared.C[j][at.column]);
      const float B[kEach] = {B4.x, B4.y, B4.z, B4.w}, C[kEach] = {C4.x, C4.y, C4.z, C4.w};
      float gB[kEach], gC[kEach];
      y[j % 4] = gu[j % 4] = gdt[j % 4] = 0.0f;
#pragma unroll
      for (int k = 0; k < kEach; ++k) {
        y[j % 4] += h[j + 1][k] * C[k];
        g[k] += gy * C[k];
        gC[k] = gy * h[j + 1][k];
        gB[k] = step.y * g[k];
        gu[j % 4] += g[k] * B[k];
        g[k] *= j < kStep / 2 ? exp2_fast(step.x * A[k]) : late[j - kStep / 2][k];
        const float q = g[k] * h[j][k];
        gdt[j % 4] += q * A[k];
        gA[k] += q * step.x;
      }
      const std::uint32_t ones = at.lane / 4 == j ? 0x3f800000 : 0;
#pragma unroll
      for (int k = 0; k < kEach; k += 2) {
        add_lanes(sums[0][k / 2], ones, gB[k], gB[k + 1]);
        add_lanes(sums[1][k / 2], ones, gC[k], gC[k + 1]);
        if constexpr (kExact<T>) {
          add_lanes(sums[0][k / 2], ones, lost(gB[k]), lost(gB[k + 1]));
          add_lanes(sums[1][k / 2], ones, lost(gC[k]), lost(gC[k + 1]));
        }
      }
      if (j % 4 == 0) {
        shared.y[j + at.quarter][at.channel] = sum_lanes(y, at.lane);
        shared.gu[j + at.quarter][at.channel] = sum_lanes(gu, at.lane);
        shared.gdt[j + at.quarter][at.channel] = sum_lanes(gdt, at.lane);
      }
    }
    // Lanes l and l ^ 4 have the same states of two tokens, from four channels each: one token for each of them.
    const bool second = at.lane & 4;
    float* to = &shared.sums[at.thread / 32][at.lane % 4 * 2 + second][at.quarter * kEach];
#pragma unroll
    for (int which = 0; which < 2; ++which) {
      float both[kEach];
#pragma unroll
      for (int k = 0; k < kEach; ++k) {
        const float first = sums[which][k / 2][k % 2 * 2], next = sums[which][k / 2][k % 2 * 2 + 1];
        both[k] = (second ? next : first) + __shfl_xor_sync(kWarp, second ? first : next, 4);
      }
      *reinterpret_cast<float4*>(to + which * kState) = {both[0], both[1], both[2], both[3]};
    }
  }
};

}  // namespace scan_adjoint

}  // namespace molt::ops::scan
