// The walk back of the scan's gradients, as selective_scan_cuda_backward.cu describes it: how work falls to blocks, what they
// have in shared memory, and the threads that have four states of a channel each.
#pragma once
#include "ops/selective_scan/selective_scan_cuda.cuh"

namespace molt::ops::scan {

namespace scan_adjoint {

using namespace scan_cuda;

constexpr int kEach = 4;  // states of a lane
constexpr int kGroups = 4, kChannels = kGroups * kState, kThreads = kChannels * kState / kEach, kWarps = kThreads / 32;
// Tokens of a tile; of a step, whose states are in registers.
constexpr int kTokens = static_cast<int>(kChunk), kStep = 8, kSteps = kTokens / kStep;
constexpr int kVector = 4, kAcross = kChannels / kVector, kEdges = kStep * kAcross;  // how tokens are read and gradients written
constexpr int kPadded = kChannels + 8;  // keeps four rows of 8 channels on different banks
constexpr int kLate = 4;                // of a step the last tokens whose decays are kept: registers end there

// A barrier at which a thread arrives without waiting; it waits later, for the phase of that parity.
struct Barrier {
  std::uint64_t state;

  __device__ unsigned place() { return static_cast<unsigned>(__cvta_generic_to_shared(&state)); }
  __device__ void begin() { asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(place()), "r"(kThreads) : "memory"); }
  __device__ void arrive() {
    asm volatile("{ .reg .b64 phase; mbarrier.arrive.shared.b64 phase, [%0]; }" ::"r"(place()) : "memory");
  }
  __device__ void await(unsigned parity) {
#if __CUDA_ARCH__ >= 900
#define MOLT_WAIT "mbarrier.try_wait.parity.shared.b64"
#else
#define MOLT_WAIT "mbarrier.test_wait.parity.shared.b64"
#endif
    asm volatile("{ .reg .pred over; WAIT%=: " MOLT_WAIT " over, [%0], %1; @!over bra WAIT%=; }" ::"r"(place()), "r"(parity)
                 : "memory");
#undef MOLT_WAIT
  }
};

template <class T, int kTogether>
struct Shared {
  static constexpr int kRows = (kGroups + kTogether - 1) / kTogether;
  using Four = Packed<T, kVector>;

  float2 step[kTokens][kChannels];      // dt, dt * x
  float B[kTokens][kRows * kState];     // rows of the block's groups of B, beside each other
  float4 states[kSteps - 1][kThreads];  // before each step of the tile but the last
  // Of steps in turns: the gradient before skip and gate, C, and what is read of tokens.
  float gy[2][kStep][kChannels], C[2][kStep][kChannels];
  Four x[3][kEdges];
  struct alignas(16) {
    Four y_gradient, z;  // then, in their place, what y is multiplied by in the gradient of z
  } gate[2][kEdges];
  // What the walk along a step comes to: see Sums.
  float y[kStep][kPadded], gu[kStep][kPadded], gdt[kStep][kPadded];
  float sums[kWarps][kStep][2 * kState + 8];  // over a warp's channels, for B and for C; padded likewise
  float4 totals[2][kEdges];                   // shares of the gradients of dt_bias and of D
  float D[kChannels];
  Barrier staged, left, finished;  // a step's rows, what the walk comes to, its gradients
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
        gB{to.B, static_cast<int>(to.B_stride)},
        gC{to.C, static_cast<int>(to.C_stride)},
        gz{to.z, static_cast<int>(to.z_stride)} {}
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

// sum += a b by a tensor core, of 16 x 8 and 8 x 8. With g = lane / 4 and t = lane % 4 a lane holds
//   of a    (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4)
//   of b    (t, g), (t + 4, g)
//   of sum  (g, 2 t), (g, 2 t + 1), (g + 8, 2 t), (g + 8, 2 t + 1)
__device__ inline void add_product(float (&sum)[4], const float (&a)[4], const float (&b)[2]) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])), "r"(__float_as_uint(a[3])),
        "r"(__float_as_uint(b[0])), "r"(__float_as_uint(b[1])));
}

// The operands of that product lose all but 10 bits of their fractions. Those of float32 tokens are given in two parts, so that
// nothing is lost; sums of those of bfloat16 tokens get a factor for two lossy operands that makes the error zero on average.
template <class T>
constexpr bool kExact = sizeof(T) == 4;
template <class T>
constexpr float kCentred = kExact<T> ? 1.0f : 1.0f + 2 * 0.000352f;
template <int kCount>
struct Lost {  // what those bits come to
  float values[kCount];
  __device__ explicit Lost(const float (&from)[kCount]) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) values[i] = from[i] - __uint_as_float(__float_as_uint(from[i]) & ~0x1fffu);
  }
};
template <class T>
__device__ void add_whole_product(float (&sum)[4], const float (&a)[4], const float (&b)[2]) {
  add_product(sum, a, b);
  if constexpr (kExact<T>) {
    add_product(sum, Lost(a).values, b);
    add_product(sum, a, Lost(b).values);
  }
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

// The sums over a warp's channels of products of a value of each state with one of the channel, for four tokens. A lane's states
// are in a row of the left operand whose four columns are the channels 0 to 3 or 4 to 7; each token has two columns of the right
// one, with the values of either four, and where row and column belong to the same channels the result has half of a sum.
template <class T>
struct ChannelSums {
  float sums[2][4] = {};  // of the first and the last two states

  // Tokens `token` and token + 1 of four.
  __device__ void add(unsigned quarter, unsigned token, const float (&states)[kEach], float value,
                      const float (&next_states)[kEach], float next_value) {
    const float values[2] = {quarter == token ? value : 0.0f, quarter == token + 1 ? next_value : 0.0f};
#pragma unroll
    for (int k = 0; k < kEach; k += 2)
      add_whole_product<T>(sums[k / 2], {states[k], states[k + 1], next_states[k], next_states[k + 1]}, values);
  }
  // For token lane % 4, of the lane's four states the two that begin at half(lane).
  __device__ static unsigned half(unsigned lane) { return lane / 4 % 2 * 2; }
  __device__ float2 total(unsigned lane) const {
    const bool upper = half(lane) != 0;
    float own[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      own[i] = upper ? sums[1][i * 2 + 1] : sums[0][i * 2];
      own[i] += __shfl_xor_sync(kWarp, upper ? sums[0][i * 2 + 1] : sums[1][i * 2], 4);
    }
    return {own[0], own[1]};
  }
};

// A thread's four states of one channel.
template <class T, int kTogether>
struct Adjoint {
  using Place = Lane<kTogether>;

  Shared<T, kTogether>& shared;
  float A[kEach], g[kEach] = {}, gA[kEach] = {};

  __device__ explicit Adjoint(Shared<T, kTogether>& shared) : shared(shared) {}

  __device__ static void read(float (&to)[kEach], const float4& from) {
    to[0] = from.x, to[1] = from.y, to[2] = from.z, to[3] = from.w;
  }
  __device__ static const float4& four(const float& from) { return *reinterpret_cast<const float4*>(&from); }

  // The state after token j of the tile, and the decay.
  __device__ void advance(const Place& at, float (&after)[kEach], float (&decay)[kEach], const float (&before)[kEach],
                          int j) const {
    const float2 step = shared.step[j][at.channel];
    float B[kEach];
    read(B, four(shared.B[j][at.row]));
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      decay[k] = exp2_fast(step.x * A[k]);
      after[k] = decay[k] * before[k] + step.y * B[k];
    }
  }

  // From the states before a tile those before its step `last`; those before steps on the way are stored.
  __device__ void find_states(float (&h)[kEach], int last) {
    const Place at;
    for (int step = 0; step < last; ++step) {
      shared.states[step][at.thread] = {h[0], h[1], h[2], h[3]};
#pragma unroll
      for (int i = 0; i < kStep; ++i) {
        float decay[kEach];
        advance(at, h, decay, h, step * kStep + i);
      }
    }
  }
  __device__ void load_stored(float (&h)[kEach], int step) const { read(h, shared.states[step][thread_number()]); }

  // What a step comes to, for its first and its last four tokens, of which the lane has one: y, the gradients of dt * x and of
  // dt / ln 2 as far as it comes from decays, and the sums for B and C.
  struct Sums {
    float y[2], gu[2], gdt[2];
    float2 gB[2], gC[2];
  };

  // Back along the step of that number, from the states before it.
  __device__ Sums go_back(const float (&before)[kEach], int number) {
    const int first = number % kSteps * kStep;  // in the tile
    const Place at;
    float h[kStep + 1][kEach], late[kLate][kEach], decay[kEach];
#pragma unroll
    for (int k = 0; k < kEach; ++k) h[0][k] = before[k];
#pragma unroll
    for (int j = 0; j < kStep; ++j) advance(at, h[j + 1], j < kStep - kLate ? decay : late[j - (kStep - kLate)], h[j], first + j);

    __syncwarp();  // what was read is read again, so that it holds no registers
    const auto& gys = shared.gy[number % 2];
    const auto& Cs = shared.C[number % 2];
    Sums sums;
    ChannelSums<T> gB, gC;
    float y[4], gu[4], gdt[4], next_g[kEach], next_u = 0.0f, next_gy = 0.0f;
#pragma unroll
    for (int j = kStep - 1; j >= 0; --j) {
      const int token = j % 4;
      const float2 step = shared.step[first + j][at.channel];
      const float gy = gys[j][at.channel];
      float B[kEach], C[kEach];
      read(B, four(shared.B[first + j][at.row]));
      read(C, four(Cs[j][at.column]));
      y[token] = gu[token] = gdt[token] = 0.0f;
#pragma unroll
      for (int k = 0; k < kEach; ++k) {
        y[token] += h[j + 1][k] * C[k];
        g[k] += gy * C[k];
        gu[token] += g[k] * B[k];
      }
      if (j % 2 == 1) {
#pragma unroll
        for (int k = 0; k < kEach; ++k) next_g[k] = g[k];
        next_u = step.y, next_gy = gy;
      } else {
        gB.add(at.quarter, token, g, step.y, next_g, next_u);
        gC.add(at.quarter, token, h[j + 1], gy, h[j + 2], next_gy);
      }
#pragma unroll
      for (int k = 0; k < kEach; ++k) {
        g[k] *= j < kStep - kLate ? exp2_fast(step.x * A[k]) : late[j - (kStep - kLate)][k];
        const float q = g[k] * h[j][k];
        gdt[token] += q * A[k];
        gA[k] += q * step.x;
      }
      if (token == 0) {
        sums.y[j / 4] = sum_lanes(y, at.lane);
        sums.gu[j / 4] = sum_lanes(gu, at.lane);
        sums.gdt[j / 4] = sum_lanes(gdt, at.lane);
        sums.gB[j / 4] = gB.total(at.lane);
        sums.gC[j / 4] = gC.total(at.lane);
        gB = gC = {};
      }
    }
    return sums;
  }

  __device__ void leave(const Sums& s) const {
    const Place at;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const unsigned token = i * 4 + at.quarter;
      shared.y[token][at.channel] = s.y[i];
      shared.gu[token][at.channel] = s.gu[i];
      shared.gdt[token][at.channel] = s.gdt[i];
      float* sums = &shared.sums[at.thread / 32][i * 4 + at.lane % 4][at.quarter * kEach + ChannelSums<T>::half(at.lane)];
      *reinterpret_cast<float2*>(sums) = s.gB[i];
      *reinterpret_cast<float2*>(sums + kState) = s.gC[i];
    }
  }
};

}  // namespace scan_adjoint

}  // namespace molt::ops::scan
