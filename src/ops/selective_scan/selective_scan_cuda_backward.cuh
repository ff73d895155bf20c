// The walk back of the scan's gradients, as selective_scan_cuda_backward.cu describes it: how work falls to blocks, what they
// have in shared memory, and the threads that walk, with eight states of a channel each.
#pragma once
#include "ops/selective_scan/selective_scan_cuda.cuh"

namespace molt::ops::scan {

namespace scan_adjoint {

using namespace scan_cuda;

constexpr int kEach = 8, kSharers = kState / kEach;  // states of a walker; walkers of a channel
constexpr int kGroups = 4, kChannels = kGroups * kState, kWalkers = kChannels * kSharers;  // of a block; a warp has one group
constexpr int kTile = static_cast<int>(kChunk), kStep = 8, kSteps = kTile / kStep;         // tokens; steps of a tile
constexpr int kVector = 4, kAcross = kChannels / kVector, kHelpers = kStep * kAcross;      // how helpers split a step
constexpr int kThreads = kWalkers + kHelpers;

// A barrier at which warps arrive without waiting; others wait later, for phases in turn.
struct Barrier {
  std::uint64_t state;

  __device__ unsigned place() { return static_cast<unsigned>(__cvta_generic_to_shared(&state)); }
  __device__ void begin(int warps) { asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(place()), "r"(warps) : "memory"); }
  __device__ void arrive() {
    __syncwarp();
    if (threadIdx.x % 32 == 0)
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

// Where a step's tokens lie.
template <class T, int kTogether>
struct Place {
  using Half = Packed<T, kEach>;
  static constexpr int kRows = (kGroups + kTogether - 1) / kTogether;  // of B, that the block's groups share
  // Rows are kept apart where there is room. Then 16 channels of a token and of the next lie on different banks, and eight
  // channels of four tokens likewise.
  static constexpr int kWidth = kChannels + (kTogether > 1 ? 4 : 0);
  __device__ static constexpr unsigned row(unsigned token) { return token % 2 * (kStep / 2) + token / 2; }

  T states[kStep][kChannels][kState];         // after each token; once walked back, their gradients
  float dt[kStep][kWidth], x[kStep][kWidth];  // these and the next three of each token at row(token)
  float gy[kStep][kWidth];                    // the gradient before skip and gate
  float slope[kStep][kWidth];                 // what y is multiplied by in the gradient of z; then that of dt from decays
  float C[kStep][kWidth];                     // then the gradient of dt * x
  float B[kStep][kRows * kState];

  // Over the states of a group, once their gradients have been used: the group's sums for B, 16 states of a token.
  __device__ float* sums(unsigned token, unsigned group) {
    return reinterpret_cast<float*>(&states[token][group * kState]) + token / 2 * 8;  // tokens on different banks
  }
  // Eight states in one piece, placed so that neither writing nor reading rows of four channels meets on a bank.
  __device__ Half& half(unsigned token, unsigned channel, unsigned which) {
    return *reinterpret_cast<Half*>(&states[token][channel][(which ^ channel / 4 % 2) * kEach]);
  }
};

template <class T, int kTogether>
struct Shared {
  Place<T, kTogether> places[kSteps];
  Barrier staged[kSteps], finished[kSteps];  // by helpers; by walkers
};

// Columns of a matrix of tokens from one on, so that finding a row takes one instruction.
template <class T>
struct Columns {
  char* first;
  int stride;  // bytes from row to row

  __device__ Columns(const Rows& rows, int column)
      : first(static_cast<char*>(const_cast<void*>(rows.data)) + column * static_cast<int>(sizeof(T))),
        stride(rows.stride * static_cast<int>(sizeof(T))) {}
  __device__ T* row(int token) const {
    T* to;
    asm("mad.wide.s32 %0, %1, %2, %3;" : "=l"(to) : "r"(token), "r"(stride), "l"(first));
    __builtin_assume(__isGlobal(to));
    return to;
  }
  template <int kCount>
  __device__ Packed<T, kCount> read(int token, int offset = 0) const {
    return *reinterpret_cast<const Packed<T, kCount>*>(row(token) + offset);
  }
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

// The tiles of a span and their steps, in the order in which they are walked back. A tile's first step takes the place that the
// last step of the tile behind it leaves first, and so on: places turn round with each tile.
struct Course {
  const Span& span;
  int tiles, last_steps;  // the latter of the last tile

  // Of a barrier of that place in that turn: some have nothing to do in the first.
  __device__ unsigned phase(int turn, int place) const { return static_cast<unsigned>(turn + (place >= last_steps)) % 2; }
  // Of a tile in its turn the step in a place, and the other way round.
  __device__ static int step_in(int turn, int place) { return turn % 2 ? kSteps - 1 - place : place; }

  __device__ explicit Course(const Span& span)
      : span(span), tiles((span.end - span.begin + kTile - 1) / kTile), last_steps((span.end - begin(0) + kStep - 1) / kStep) {}
  __device__ int begin(int turn, int step = 0) const { return span.begin + (tiles - 1 - turn) * kTile + step * kStep; }
  __device__ int steps(int turn) const { return turn == 0 ? last_steps : kSteps; }
  __device__ int count(int turn, int step) const { return min(span.end - begin(turn, step), kStep); }  // tokens
};

// The sums over a group's channels of states times a value of the channel, for the tokens of a step, by the group's warp. With
// g = lane / 4 and t = lane % 4 a lane has those of state g for the tokens 2 t and 2 t + 1, and of state g + 8 for the same.
template <class T>
struct GroupSums {
  // Of the token g the values of the channels 2 t, 2 t + 1, 2 t + 8 and 2 t + 9 of the group; value(token, channel) gives those
  // of that channel and the next.
  using Values = Packed<T, 4>;
  template <class Value>
  __device__ static Values find(const Value& value) {
    const unsigned lane = threadIdx.x % 32;
    const float2 low = value(lane / 4, lane % 4 * 2), high = value(lane / 4, lane % 4 * 2 + 8);
    return Values::of({low.x, low.y, high.x, high.y});
  }

  float sums[4];

  // By tensor cores, both operands rounded to bfloat16: of each token's product, states by tokens whose values are used, only
  // that token's column is wanted.
  template <class Place>
  __device__ GroupSums(Place& place, unsigned group, const Values& values) {
    const unsigned lane = threadIdx.x % 32, channel = group * kState + lane / 16 * 8 + lane % 8, which = lane / 8 % 2;
#pragma unroll
    for (unsigned token = 0; token < kStep; ++token) {
      const auto from = static_cast<unsigned>(__cvta_generic_to_shared(&place.half(token, channel, which)));
      std::uint32_t left[4];
      float product[4];
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                   : "=r"(left[0]), "=r"(left[1]), "=r"(left[2]), "=r"(left[3])
                   : "r"(from)
                   : "memory");
      asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %10, %10, "
          "%10};"
          : "=f"(product[0]), "=f"(product[1]), "=f"(product[2]), "=f"(product[3])
          : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(values.words[0]), "r"(values.words[1]), "f"(0.0f));
      if (lane % 4 == token / 2) sums[token % 2] = product[token % 2], sums[token % 2 + 2] = product[token % 2 + 2];
    }
  }
};
// Of float32 tokens, in float32.
template <>
template <class Place>
__device__ GroupSums<float>::GroupSums(Place& place, unsigned group, const Values& values) : sums{} {
  const unsigned lane = threadIdx.x % 32;
#pragma unroll
  for (unsigned channel = 0; channel < kState; ++channel) {
#pragma unroll
    for (unsigned i = 0; i < 4; ++i) {
      const unsigned token = lane % 4 * 2 + i % 2;
      const float value = __shfl_sync(kWarp, values[channel / 8 * 2 + channel % 2], token * 4 + channel % 8 / 2);
      sums[i] += value * place.half(token, group * kState + channel, i / 2)[lane / 4];
    }
  }
}

// The sums over the two lanes of a channel of a value for each of two tokens: the lower lane gets the first token's.
__device__ inline float sum_halves(const float (&v)[2], bool upper) {
  return (upper ? v[1] : v[0]) + __shfl_xor_sync(kWarp, upper ? v[0] : v[1], 16);
}

// A thread's eight states of one channel.
template <class T, int kTogether>
struct Walker {
  using Where = Place<T, kTogether>;
  using Half = typename Where::Half;

  unsigned upper, channel, row, column;  // which states; in the block; where its states begin in rows of B and of C
  float A[kEach], g[kEach] = {}, gA[kEach] = {}, D = 0.0f;

  __device__ Walker()
      : upper(threadIdx.x / 16 % 2),
        channel(threadIdx.x / 32 * kState + threadIdx.x % 16),
        row(Part<kTogether>::row(channel) + upper * kEach),
        column(channel / kState * kState + upper * kEach) {}

  // What a walker reads of a token, while the one before it is in work.
  struct Row {
    float dt, x, gy;
    Packed<float, kEach> B, C;
    Half before;  // the states before it
  };
  __device__ static Packed<float, kEach> eight(const float& from) {
    return *reinterpret_cast<const Packed<float, kEach>*>(&from);
  }
  __device__ Row read(Where& place, int j) const {
    return {.dt = place.dt[place.row(j)][channel],
            .x = place.x[place.row(j)][channel],
            .B = eight(place.B[j][row]),
            .C = eight(place.C[place.row(j)][column])};
  }
  template <class Before>
  __device__ Row read_back(Where& place, int j, const Before& before) const {
    return {.dt = place.dt[place.row(j)][channel],
            .gy = place.gy[place.row(j)][channel],
            .B = eight(place.B[j][row]),
            .C = eight(place.C[place.row(j)][column]),
            .before = j > 0 ? place.half(j - 1, channel, upper) : before()};
  }
  __device__ void find_decays(float (&decays)[kEach], float dt) const {
#pragma unroll
    for (int k = 0; k < kEach; ++k) decays[k] = exp2_fast(dt * A[k]);
  }

  // The states after each token of a step, from `h` before it, which becomes the last. Of the sums y the lane gets those of the
  // tokens 2 i + upper. What the next token needs is on its way while a token is in work.
  __device__ void go_forward(Where& place, float (&h)[kEach], float (&ys)[kStep / 2]) const {
    float y[2], decays[kEach];
    Row now = read(place, 0);
    find_decays(decays, now.dt);
#pragma unroll
    for (int j = 0; j < kStep; ++j) {
      Row next = now;
      if (j + 1 < kStep) next = read(place, j + 1);
      const float u = now.dt * now.x;
      float sums[2] = {};
#pragma unroll
      for (int k = 0; k < kEach; ++k) {
        h[k] = decays[k] * h[k] + u * now.B[k];
        sums[k % 2] += h[k] * now.C[k];
      }
      find_decays(decays, next.dt);
      place.half(j, channel, upper) = Half::of(h);
      y[j % 2] = sums[0] + sums[1];
      if (j % 2 == 1) ys[j / 2] = sum_halves(y, upper);
      now = next;
    }
  }

  // Back along a step; before() gives the states before it.
  template <class Before>
  __device__ void go_back(Where& place, const Before& before) {
    float gu[2], gdt[2], decays[kEach];
    Row now = read_back(place, kStep - 1, before);
    find_decays(decays, now.dt);
#pragma unroll
    for (int j = kStep - 1; j >= 0; --j) {
      Row next = now;
      if (j > 0) next = read_back(place, j - 1, before);
      float u_sum = 0.0f, dt_sum = 0.0f;
#pragma unroll
      for (int k = 0; k < kEach; ++k) {
        g[k] += now.gy * now.C[k];
        u_sum += g[k] * now.B[k];
      }
      place.half(j, channel, upper) = Half::of(g);
#pragma unroll
      for (int k = 0; k < kEach; ++k) {
        g[k] *= decays[k];
        const float q = g[k] * now.before[k];
        dt_sum += q * A[k];
        gA[k] += q * now.dt;
      }
      find_decays(decays, next.dt);
      gu[j % 2] = u_sum, gdt[j % 2] = dt_sum;
      if (j % 2 == 0) {
        const float own_gu = sum_halves(gu, upper), own_gdt = sum_halves(gdt, upper);
        __syncwarp();  // all have read these tokens' C
        place.C[place.row(j + upper)][channel] = own_gu;
        place.slope[place.row(j + upper)][channel] = own_gdt;
      }
      now = next;
    }
  }
};

}  // namespace scan_adjoint

}  // namespace molt::ops::scan
