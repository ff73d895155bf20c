// What the CPU's forward, backward and update share: the memory of one thread, and how a group's rows and states get into it.
// A group is `state` channels that share rows of B and C. Its channels lie across vectors, padded with zeros to whole ones, so
// that nothing is summed across a vector going forward; states are (state, width) with width = padded(state).
//
// Rows of a tensor lie d_inner or more elements apart and a group reads a few dozen bytes of each. So a thread takes a panel of
// neighbouring groups through a chunk of tokens, group by group, before the next chunk: pages and pairs of cache lines are
// fetched once for all of them, and each group asks for the next one's rows while it computes.
#pragma once
#include <algorithm>
#include <vector>

#include "ops/lanes.h"
#include "ops/selective_scan/selective_scan_kernels.h"

namespace molt::ops::scan {

constexpr double kLog2e = 1.4426950408889634, kLn2 = 0.6931471805599453;

template <class Scalar>
const Scalar* as(const void* pointer) {
  return static_cast<const Scalar*>(pointer);
}
template <class Scalar>
Scalar* as(void* pointer) {
  return static_cast<Scalar*>(pointer);
}

// What a kernel is compiled for: the state size if it is known (or 0), the bytes of a vector, and how many vectors of channels
// are taken at once.
template <class ScalarType, int kStateSize, int kVectorBytes, int kVectorCount>
struct Form {
  using Scalar = ScalarType;
  using Vector = Lanes<Scalar, kVectorBytes>;
  static constexpr int kState = kStateSize, kBytes = kVectorBytes, kVectors = kVectorCount;
  static constexpr int kStep = kLanes<Scalar, kBytes>, kBlock = kStep * kVectors;  // channels
};
using Float16Wide = Form<float, 16, 64, 1>;  // AVX-512
using Float16 = Form<float, 16, 32, 2>;
using AnyFloat = Form<float, 0, 32, 1>;
using AnyDouble = Form<double, 0, 32, 1>;

// Zeroed arrays that begin at cache lines; they live as long as the scratch.
template <class Scalar>
class Scratch {
 public:
  Scalar* take(std::int64_t count) {
    constexpr std::int64_t per_line = 64 / sizeof(Scalar);
    return arrays_.emplace_back(std::vector<Line>((count + per_line - 1) / per_line)).data()->values;
  }

 private:
  struct alignas(64) Line {
    Scalar values[64 / sizeof(Scalar)] = {};
  };
  std::vector<std::vector<Line>> arrays_;
};

// The rows of one token of a group's channels, beside each other: one pointer leads to all of them (x86 has few registers).
enum Row {
  kDt,  // after softplus
  kX,
  kY,  // before skip and gate
  kForwardRows,
  kSlope = kForwardRows,  // of the softplus
  kGate,                  // sigmoid(z)
  kBackwardRows
};

// In the same way, for each state: the decay -exp(A_log) * log2(e), and the state; or, going back, the adjoint of the state and
// the gradient of the decay.
enum Square { kA, kH, kForwardSquares, kAdjoint = kH, kGA, kBackwardSquares };

// One thread's arrays for one chunk of one group, and the squares of the groups of a panel.
template <class Scalar, int kRows = kForwardRows, int kSquares = kForwardSquares>
struct Work {
  static constexpr bool kBackward = kRows == kBackwardRows;
  Work(const Arguments& a, std::int64_t groups)
      : state(a.state),
        width(padded<Scalar>(a.state)),
        tokens(scratch.take(kCpuChunk * kRows * width)),
        squares(scratch.take(groups * state * kSquares * width)),
        bias(scratch.take(groups * width)),
        D(scratch.take(groups * width)) {}

  // Of the panel's group `slot`; with `width` where it is known at compile time.
  Scalar* row(std::int64_t token, Row row, std::int64_t width) const { return tokens + (token * kRows + row) * width; }
  Scalar* square(std::int64_t slot, std::int64_t n, Square square, std::int64_t width) const {
    return squares + ((slot * state + n) * kSquares + square) * width;
  }
  static constexpr std::int64_t pitch(std::int64_t width) { return kSquares * width; }  // from one state's square to the next's

  std::int64_t state, width;
  Scratch<Scalar> scratch;
  Scalar *tokens, *squares;  // (kCpuChunk, rows, width), (groups, state, squares, width)
  Scalar *bias, *D;          // (groups, width)
};

// Elements n … of row `channel` of -exp(A_log) * log2(e). Below -2^24 every step that is not zero decays to nothing anyway, and
// decay_over() stays exact.
template <class Scalar>
MOLT_INLINE Lanes<Scalar> decay(const Arguments& a, std::int64_t channel, std::int64_t n) {
  const Lanes<Scalar> A = exp(load(as<Scalar>(a.A_log) + channel * a.state + n, a.state - n)) * static_cast<Scalar>(-kLog2e);
  return larger(Lanes<Scalar>{} - (1 << 24), A);
}

// 2^(dt * A), at least 2^-126, for dt * A <= 0. `limit` is exponent_limit().
template <class Vector>
MOLT_INLINE Vector decay_over(const Vector& dt, const Vector& A, const Vector& limit) {
  if constexpr (std::is_same_v<ElementOf<Vector>, float>) {
    const Vector rounded = dt * A + kRound;
    return scaled_by_power(exp2_of_fraction(Vector(dt * A - (rounded - kRound))), larger(limit, rounded));
  } else {
    return exp2_in_range(larger(limit, Vector(dt * A)));
  }
}
template <class Scalar, int kBytes = 32>
MOLT_INLINE Lanes<Scalar, kBytes> exponent_limit() {
  return splat_unseen<Scalar, kBytes>((std::is_same_v<Scalar, float> ? kRound : 0) - 126);
}

template <class Scalar>
MOLT_INLINE void load_parameters(const Arguments& a, std::int64_t group, Scalar* bias, Scalar* D) {
  for (std::int64_t i = 0; i < a.state; ++i) {
    bias[i] = a.dt_bias ? as<Scalar>(a.dt_bias)[group * a.state + i] : 0;
    D[i] = a.D ? as<Scalar>(a.D)[group * a.state + i] : 0;
  }
}

template <class Scalar, class AnyWork>
MOLT_INLINE void load_group(const Arguments& a, const AnyWork& w, std::int64_t slot, std::int64_t group) {
  load_parameters<Scalar>(a, group, w.bias + slot * w.width, w.D + slot * w.width);
  for (std::int64_t i = 0; i < w.state; ++i) {
    for (std::int64_t n = 0; n < w.state; n += kLanes<Scalar>) {
      const Lanes<Scalar> row = decay<Scalar>(a, group * w.state + i, n);
      for (int k = 0; k < kLanes<Scalar> && n + k < w.state; ++k) w.square(slot, n + k, kA, w.width)[i] = row[k];
    }
  }
}

// Between rows `pitch` apart of a work array, one for each state, and rows (channel, state) of a tensor; a null tensor is zero.
template <class Scalar>
MOLT_INLINE void load_state(Scalar* h, const Scalar* from, std::int64_t state, std::int64_t pitch) {
  for (std::int64_t i = 0; i < state; ++i) {
    for (std::int64_t n = 0; n < state; ++n) h[n * pitch + i] = from ? from[i * state + n] : 0;
  }
}
template <class Scalar>
MOLT_INLINE void store_state(Scalar* to, const Scalar* h, std::int64_t state, std::int64_t pitch) {
  for (std::int64_t i = 0; i < state; ++i) {
    for (std::int64_t n = 0; n < state; ++n) to[i * state + n] = h[n * pitch + i];
  }
}

// `count` tokens from `begin` on of a group, whose channels begin in `column` of d_inner and in columns of x and B of their own.
struct Columns {
  Columns(const Arguments& a, std::int64_t group)
      : column(group * a.state), B(column / (a.d_inner / a.d_xb) / a.state * a.state), x(a.x_columns == a.d_inner ? column : B) {}
  std::int64_t column, B, x;
};
struct Place : Columns {
  Place(const Arguments& a, std::int64_t group, std::int64_t slot, std::int64_t begin, std::int64_t count, Columns next,
        std::int64_t next_begin)
      : Columns(a, group), slot(slot), begin(begin), count(count), next(next), next_begin(next_begin) {}
  std::int64_t slot;  // of the group in its panel
  std::int64_t begin, count;
  Columns next;  // what is computed after it
  std::int64_t next_begin;
};

// Asks for the rows of the token that follows `t` of this place in the next one.
template <class Scalar>
MOLT_INLINE void prefetch_token(const Arguments& a, const Place& place, std::int64_t t, std::int64_t lane) {
  const std::int64_t token = place.next_begin + t, column = place.next.column + lane;
  __builtin_prefetch(as<Scalar>(a.dt) + token * a.dt_stride + column, 0, 2);
  __builtin_prefetch(as<Scalar>(a.x) + token * a.x_stride + place.next.x + lane, 0, 2);
  __builtin_prefetch(as<Scalar>(a.B) + token * a.B_stride + place.next.B + lane, 0, 2);
  __builtin_prefetch(as<Scalar>(a.C) + token * a.C_stride + column, 0, 2);
  if (a.z) __builtin_prefetch(as<Scalar>(a.z) + token * a.z_stride + column, 0, 2);
}

// Loads dt and x of a place.
template <class F, class AnyWork>
MOLT_INLINE void load_tokens(const Arguments& a, const AnyWork& w, const Place& place) {
  using Scalar = typename F::Scalar;
  using Vector = typename F::Vector;
  const std::int64_t state = F::kState ? F::kState : w.state, width = padded<Scalar>(state);
  const Scalar* bias = w.bias + place.slot * width;
  for (std::int64_t t = 0; t < place.count; ++t) {
    const Scalar* dt = as<Scalar>(a.dt) + (place.begin + t) * a.dt_stride + place.column;
    const Scalar* x = as<Scalar>(a.x) + (place.begin + t) * a.x_stride + place.x;
    Scalar* row = w.row(t, kDt, width);
    for (std::int64_t i = 0; i < width; i += F::kStep) {
      Vector slope;
      const Vector step = softplus(Vector(load<F::kBytes>(dt + i, state - i) + load<F::kBytes>(bias + i)), slope);
      if constexpr (AnyWork::kBackward) store(row + kSlope * width + i, slope);
      store(row + kDt * width + i, step);
      store(row + kX * width + i, load<F::kBytes>(x + i, state - i));
    }
  }
}

// The place of the kept state of a chunk of a sequence and a group.
template <class Scalar>
Scalar* kept_state(const Arguments& a, std::int64_t sequence, std::int64_t chunk, std::int64_t group) {
  const std::int64_t place = a.offsets[sequence] / kCpuChunk + sequence + chunk;
  return as<Scalar>(a.kept) + (place * (a.d_inner / a.state) + group) * a.state * padded<Scalar>(a.state);
}

// Tasks a thread takes at least, so that threads are not woken for less than some microseconds of work.
inline std::int64_t grain(const Arguments& a, std::int64_t tasks) {
  const std::int64_t task_size = std::max<std::int64_t>(1, a.tokens * a.d_inner * a.state / std::max<std::int64_t>(1, tasks));
  return std::max<std::int64_t>(1, 16384 / task_size);
}

// Groups in a panel: up to a kilobyte of neighbouring channels, but at least four tasks a thread.
inline std::int64_t panel_size(std::int64_t tasks, std::int64_t groups_of_task, std::int64_t state, std::int64_t threads) {
  const std::int64_t most = std::max<std::int64_t>(1, 256 / (state * groups_of_task));
  return std::clamp<std::int64_t>(tasks / (4 * threads), 1, most);
}

}  // namespace molt::ops::scan
