// What the CPU's forward, backward and update share: the memory of one thread, and how a group's rows and states get into it.
// A group is `state` channels that share rows of B and C. Its channels lie across vectors, padded with zeros to whole ones, so
// that nothing is summed across a vector going forward; states are (state, width) with width = padded(state).
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

// The rows of one token of a group, beside each other: one pointer leads to all of them (x86 has few registers). Each is of the
// group's channels, except B, C and their gradients, which are of states. The forward pass has the first ones only.
enum Row {
  kDt,  // after softplus
  kX,
  kU,  // dt * x
  kY,  // before skip and gate
  kB,
  kC,
  kForwardRows,
  kSlope = kForwardRows,  // of the softplus
  kZ,
  kGate,  // sigmoid(z)
  kGOut,  // gradient of the output
  kGy,    // gradients of y before the gate, of u, of dt through the decay over ln(2), of B and of C
  kGu,
  kGdt,
  kGB,
  kGC,
  kBackwardRows
};

// In the same way, for each state: the decay -exp(A_log) * log2(e), and the adjoint of the state and the gradient of the decay.
enum Square { kA, kForwardSquares, kAdjoint = kForwardSquares, kGA, kBackwardSquares };

// One thread's arrays for one chunk of one group.
template <class Scalar, int kRows = kForwardRows, int kSquares = kForwardSquares>
struct Work {
  static constexpr bool kBackward = kRows == kBackwardRows;
  explicit Work(const Arguments& a)
      : state(a.state),
        width(padded<Scalar>(a.state)),
        tokens(scratch.take(kChunk * kRows * width)),
        squares(scratch.take(state * kSquares * width)),
        h(scratch.take(state * width)),
        bias(scratch.take(width)),
        D(scratch.take(width)),
        products(scratch.take(2 * width * kLanes<Scalar>)) {}

  // With `width` where it is known at compile time.
  Scalar* row(std::int64_t token, Row row, std::int64_t width) const { return tokens + (token * kRows + row) * width; }
  Scalar* square(std::int64_t n, Square square, std::int64_t width) const { return squares + (n * kSquares + square) * width; }

  std::int64_t state, width;
  std::int64_t group = -1;  // whose A, bias and D are loaded
  Scratch<Scalar> scratch;
  Scalar *tokens, *squares;  // (kChunk, rows, width), (state, squares, width)
  Scalar* h;                 // (state, width)
  Scalar *bias, *D;          // (width)
  Scalar* products;          // (2, width, lanes): products that are still to be summed over the lanes
};

// The column of x where a group's channels begin.
inline std::int64_t x_column(const Arguments& a, std::int64_t group) {
  return a.x_columns == a.d_inner ? group * a.state : group / (a.d_inner / a.d_xb) * a.state;
}
inline std::int64_t B_column(const Arguments& a, std::int64_t group) {
  return group / (a.d_inner / a.d_xb) * a.state;
}

// Elements n … of row `channel` of -exp(A_log) * log2(e).
template <class Scalar>
MOLT_INLINE Lanes<Scalar> decay(const Arguments& a, std::int64_t channel, std::int64_t n) {
  return exp(load(as<Scalar>(a.A_log) + channel * a.state + n, a.state - n)) * static_cast<Scalar>(-kLog2e);
}

template <class Scalar, class AnyWork>
MOLT_INLINE void load_parameters(const Arguments& a, const AnyWork& w, std::int64_t group) {
  for (std::int64_t i = 0; i < w.state; ++i) {
    w.bias[i] = a.dt_bias ? as<Scalar>(a.dt_bias)[group * w.state + i] : 0;
    w.D[i] = a.D ? as<Scalar>(a.D)[group * w.state + i] : 0;
  }
}

template <class Scalar, class AnyWork>
MOLT_INLINE void load_group(const Arguments& a, AnyWork& w, std::int64_t group) {
  if (w.group == group) return;
  w.group = group;
  load_parameters<Scalar>(a, w, group);
  for (std::int64_t i = 0; i < w.state; ++i) {
    for (std::int64_t n = 0; n < w.state; n += kLanes<Scalar>) {
      const Lanes<Scalar> row = decay<Scalar>(a, group * w.state + i, n);
      for (int k = 0; k < kLanes<Scalar> && n + k < w.state; ++k) w.square(n + k, kA, w.width)[i] = row[k];
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

// The rows of a slice lie far apart, so that the processor does not fetch them by itself: ask for the one `kAhead` tokens on.
constexpr std::int64_t kAhead = 8;
template <class Scalar>
MOLT_INLINE void prefetch(const Scalar* row, std::int64_t stride) {
  __builtin_prefetch(row + kAhead * stride);
}
template <class Scalar>
MOLT_INLINE void prefetch_to_write(Scalar* row, std::int64_t stride) {
  __builtin_prefetch(row + kAhead * stride, 1);
}

// Loads `count` tokens of a group from `begin` on. kState is the state size where it is known at compile time, or 0.
template <class Scalar, int kState, class AnyWork>
MOLT_INLINE void load_tokens(const Arguments& a, const AnyWork& w, std::int64_t group, std::int64_t begin, std::int64_t count) {
  const std::int64_t state = kState ? kState : w.state, width = padded<Scalar>(state);
  for (std::int64_t t = 0; t < count; ++t) {
    const Scalar* dt = as<Scalar>(a.dt) + (begin + t) * a.dt_stride + group * state;
    const Scalar* x = as<Scalar>(a.x) + (begin + t) * a.x_stride + x_column(a, group);
    const Scalar* B = as<Scalar>(a.B) + (begin + t) * a.B_stride + B_column(a, group);
    const Scalar* C = as<Scalar>(a.C) + (begin + t) * a.C_stride + group * state;
    prefetch(dt, a.dt_stride), prefetch(x, a.x_stride), prefetch(B, a.B_stride), prefetch(C, a.C_stride);
    Scalar* row = w.row(t, kDt, width);
    for (std::int64_t i = 0; i < width; i += kLanes<Scalar>) {
      Lanes<Scalar> slope;
      const Lanes<Scalar> step = softplus(load(dt + i, state - i) + load(w.bias + i), slope), value = load(x + i, state - i);
      if constexpr (AnyWork::kBackward) store(row + kSlope * width + i, slope);
      store(row + kDt * width + i, step);
      store(row + kX * width + i, value);
      store(row + kU * width + i, step * value);
      store(row + kB * width + i, load(B + i, state - i));
      store(row + kC * width + i, load(C + i, state - i));
    }
  }
}

// The place of the kept state of a chunk of a sequence and a group.
template <class Scalar>
Scalar* kept_state(const Arguments& a, std::int64_t sequence, std::int64_t chunk, std::int64_t group) {
  const std::int64_t place = a.offsets[sequence] / kChunk + sequence + chunk;
  return as<Scalar>(a.kept) + (place * (a.d_inner / a.state) + group) * a.state * padded<Scalar>(a.state);
}

// Tasks a thread takes at least, so that threads are not woken for less than some microseconds of work.
inline std::int64_t grain(const Arguments& a, std::int64_t tasks) {
  const std::int64_t task_size = std::max<std::int64_t>(1, a.tokens * a.d_inner * a.state / std::max<std::int64_t>(1, tasks));
  return std::max<std::int64_t>(1, 16384 / task_size);
}

}  // namespace molt::ops::scan
