// One token of each of many sequences on the CPU. States lie (channel, state) in the cache, and across vectors here: nothing is
// transposed.
#include <ATen/Parallel.h>

#include "ops/selective_scan/selective_scan_cpu.h"

namespace molt::ops::scan {

namespace update_cpu {

// One thread's arrays for one group.
template <class Scalar>
struct Group {
  explicit Group(const Arguments& a)
      : width(padded<Scalar>(a.state)),
        A(scratch.take(a.state * width)),
        bias(scratch.take(width)),
        D(scratch.take(width)),
        sums(scratch.take(kLanes<Scalar> * kLanes<Scalar>)) {}

  std::int64_t width;
  Scratch<Scalar> scratch;
  Scalar *A, *bias, *D;  // (channel, width), (width), (width)
  Scalar* sums;          // (lanes, lanes): y of as many channels, still to be summed over the states
};

// The states of channels `i` … of a token, and y before skip and gate. B and C are the token's rows.
template <class Scalar, int kState>
MOLT_INLINE Lanes<Scalar> update_channels(const Arguments& a, const Group<Scalar>& w, Scalar* h, const Scalar* B, const Scalar* C,
                                          const Lanes<Scalar>& dt, const Lanes<Scalar>& x, std::int64_t i) {
  const std::int64_t state = kState ? kState : a.state, width = padded<Scalar>(state);
  const Lanes<Scalar> limit = exponent_limit<Scalar>(), u = dt * x;
  for (std::int64_t k = 0; k < kLanes<Scalar> && i + k < state; ++k) {
    Lanes<Scalar> y = {};
    for (std::int64_t n = 0; n < width; n += kLanes<Scalar>) {
      Scalar* place = h + (i + k) * state + n;
      const Lanes<Scalar> kept = decay_over(splat<Scalar>(dt[k]), load(w.A + (i + k) * width + n), limit);
      const Lanes<Scalar> next = kept * load(place, state - n) + u[k] * load(B + n, state - n);
      store(place, next, state - n);
      y += next * load(C + n, state - n);
    }
    store(w.sums + k * kLanes<Scalar>, y);
  }
  Lanes<Scalar> rows[kLanes<Scalar>];
#pragma GCC unroll 8
  for (int k = 0; k < kLanes<Scalar>; ++k) rows[k] = load(w.sums + k * kLanes<Scalar>);
  return sums(rows);
}

template <class Scalar, int kState>
MOLT_INLINE void update_group(const Update& update, const Group<Scalar>& w, std::int64_t group) {
  const Arguments& a = update.arguments;
  const std::int64_t state = kState ? kState : a.state, width = padded<Scalar>(state);
  const Columns at(a, group);
  load_parameters<Scalar>(a, group, w.bias, w.D);
  for (std::int64_t i = 0; i < state; ++i) {
    for (std::int64_t n = 0; n < width; n += kLanes<Scalar>) store(w.A + i * width + n, decay<Scalar>(a, at.column + i, n));
  }
  for (std::int64_t token = 0; token < a.tokens; ++token) {
    const std::int64_t slot = update.wide_slots ? as<std::int64_t>(update.slots)[token] : as<std::int32_t>(update.slots)[token];
    Scalar* h = as<Scalar>(update.cache) + (slot * a.d_inner + at.column) * state;
    const Scalar *B = as<Scalar>(a.B) + token * a.B_stride + at.B, *C = as<Scalar>(a.C) + token * a.C_stride + at.column;
    for (std::int64_t i = 0; i < width; i += kLanes<Scalar>) {
      const std::int64_t left = state - i;
      Lanes<Scalar> slope;
      const Lanes<Scalar> x = load(as<Scalar>(a.x) + token * a.x_stride + at.x + i, left);
      const Lanes<Scalar> raw = load(as<Scalar>(a.dt) + token * a.dt_stride + at.column + i, left) + load(w.bias + i);
      Lanes<Scalar> y = update_channels<Scalar, kState>(a, w, h, B, C, softplus(raw, slope), x, i) + load(w.D + i) * x;
      if (a.z) {
        const Lanes<Scalar> z = load(as<Scalar>(a.z) + token * a.z_stride + at.column + i, left);
        y *= z * sigmoid(z);
      }
      store(as<Scalar>(a.y) + token * a.d_inner + at.column + i, y, left);
    }
  }
}

template <class Scalar, int kState>
MOLT_INLINE void update_groups(const Update& update, std::int64_t begin, std::int64_t end) {
  const Group<Scalar> work(update.arguments);
  for (std::int64_t group = begin; group < end; ++group) update_group<Scalar, kState>(update, work, group);
}
MOLT_CLONES void update_groups_float_16(const Update& update, std::int64_t begin, std::int64_t end) {
  update_groups<float, 16>(update, begin, end);
}
MOLT_CLONES void update_groups_float(const Update& update, std::int64_t begin, std::int64_t end) {
  update_groups<float, 0>(update, begin, end);
}
void update_groups_double(const Update& update, std::int64_t begin, std::int64_t end) {
  update_groups<double, 0>(update, begin, end);
}

}  // namespace update_cpu

void cpu_update(const Update& update) {
  const std::int64_t groups = update.arguments.d_inner / update.arguments.state;
  const auto run = update.arguments.type == DataType::float64 ? update_cpu::update_groups_double
                   : update.arguments.state == 16             ? update_cpu::update_groups_float_16
                                                              : update_cpu::update_groups_float;
  at::parallel_for(0, groups, grain(update.arguments, groups),
                   [&](std::int64_t begin, std::int64_t end) { run(update, begin, end); });
}

}  // namespace molt::ops::scan
