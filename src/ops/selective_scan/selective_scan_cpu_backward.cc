// The backward pass of the selective scan on the CPU. A chunk's states and decays are computed again from its kept first state
// into arrays that stay in the first two caches; then the adjoint g of the state walks back through them. With q = g * a *
// h_before, the derivative by the exponent dt * A:
//
//   g += C * gy,  gC += h * gy,  gB += g * dt * x,  gx += dt * sum(g * B),  gdt += x * sum(g * B) + sum(q * A),  gA += q * dt,  g
//   *= a
#include <ATen/Parallel.h>

#include "ops/selective_scan/selective_scan_cpu.h"

namespace molt::ops::scan {

namespace backward_cpu {

template <class Scalar>
struct BackwardWork : Work<Scalar, kBackwardRows, kBackwardSquares> {
  explicit BackwardWork(const Arguments& a) : Work<Scalar, kBackwardRows, kBackwardSquares>(a) {
    auto& scratch = this->scratch;
    history = scratch.take((kChunk + 1) * this->state * 2 * kLanes<Scalar>);
    gbias = scratch.take(this->width);
    gD = scratch.take(this->width);
  }
  // (1 + kChunk, state, 2, lanes): decay and state after each token of one vector of channels; before the first, the chunk's
  // first state.
  Scalar* history;
  Scalar *gbias, *gD;  // (width)
};

// Decays, states and y of `count` tokens of the vector of channels that begins at `lane`, from the chunk's first state in w.h.
template <class Scalar, int kState>
MOLT_INLINE void recompute_lanes(const BackwardWork<Scalar>& w, std::int64_t lane, std::int64_t count) {
  constexpr int kStep = kLanes<Scalar>;
  const std::int64_t state = kState ? kState : w.state, width = padded<Scalar>(state);
  const Lanes<Scalar> lowest = splat_unseen<Scalar>(-126);
  for (std::int64_t n = 0; n < state; ++n) store(w.history + (2 * n + 1) * kStep, load(w.h + n * width + lane));
  for (std::int64_t t = 0; t < count; ++t) {
    Scalar *row = w.row(t, kDt, width), *before = w.history + t * state * 2 * kStep, *after = before + state * 2 * kStep;
    const Lanes<Scalar> dt = load(row + kDt * width + lane), u = load(row + kU * width + lane);
    Lanes<Scalar> y = {};
    for (std::int64_t n = 0; n < state; ++n) {
      const Lanes<Scalar> a = exp2_in_range(larger(lowest, dt * load(w.square(n, kA, width) + lane)));
      const Lanes<Scalar> next = a * load(before + (2 * n + 1) * kStep) + u * row[kB * width + n];
      store(after + 2 * n * kStep, a);
      store(after + (2 * n + 1) * kStep, next);
      y += next * row[kC * width + n];
    }
    store(row + kY * width + lane, y);
  }
}

template <class Scalar, int kState>
MOLT_INLINE void reverse_lanes(const BackwardWork<Scalar>& w, std::int64_t lane, std::int64_t count) {
  constexpr int kStep = kLanes<Scalar>;
  const std::int64_t state = kState ? kState : w.state, width = padded<Scalar>(state);
  for (std::int64_t t = count - 1; t >= 0; --t) {
    Scalar* row = w.row(t, kDt, width);
    const Scalar *before = w.history + t * state * 2 * kStep, *after = before + state * 2 * kStep;
    const Lanes<Scalar> dt = load(row + kDt * width + lane), u = load(row + kU * width + lane),
                        gy = load(row + kGy * width + lane);
    Lanes<Scalar> gu = {}, gdt = {};
    for (std::int64_t n = 0; n < state; ++n) {
      Scalar* square = w.square(n, kA, width) + lane;
      const Lanes<Scalar> g = load(square + kAdjoint * width) + gy * row[kC * width + n];
      store(w.products + n * kStep, g * u);
      store(w.products + (width + n) * kStep, gy * load(after + (2 * n + 1) * kStep));
      gu += g * row[kB * width + n];
      const Lanes<Scalar> decayed = g * load(after + 2 * n * kStep);
      const Lanes<Scalar> q = decayed * load(before + (2 * n + 1) * kStep);
      gdt += q * load(square + kA * width);
      store(square + kGA * width, load(square + kGA * width) + q * dt);
      store(square + kAdjoint * width, decayed);
    }
    store(row + kGu * width + lane, gu);
    store(row + kGdt * width + lane, gdt);
    for (std::int64_t n = 0; n < 2 * width; n += kStep) {  // gradients of B, then of C
      Lanes<Scalar> rows[kStep];
#pragma GCC unroll 8
      for (int k = 0; k < kStep; ++k) rows[k] = load(w.products + (n + k) * kStep);
      Scalar* to = row + kGB * width + n;
      store(to, sums(rows) + (lane ? load(to) : Lanes<Scalar>{}));
    }
  }
}

// The gradient of y, and what its way through the gate needs.
template <class Scalar, int kState>
MOLT_INLINE void load_gradients(const Arguments& a, const Gradients& to, const BackwardWork<Scalar>& w, std::int64_t group,
                                std::int64_t begin, std::int64_t count) {
  const std::int64_t state = kState ? kState : w.state, width = padded<Scalar>(state), column = group * state;
  for (std::int64_t t = 0; t < count; ++t) {
    const Scalar* gy = to.y ? as<Scalar>(to.y) + (begin + t) * a.d_inner + column : nullptr;
    const Scalar* gate = a.z ? as<Scalar>(a.z) + (begin + t) * a.z_stride + column : nullptr;
    if (gy) prefetch(gy, a.d_inner);
    if (gate) prefetch(gate, a.z_stride);
    Scalar* row = w.row(t, kDt, width);
    for (std::int64_t i = 0; i < width; i += kLanes<Scalar>) {
      const Lanes<Scalar> out = gy ? load(gy + i, state - i) : Lanes<Scalar>{};
      if (gate) {
        const Lanes<Scalar> z = load(gate + i, state - i), s = sigmoid(z);
        store(row + kZ * width + i, z);
        store(row + kGate * width + i, s);
        store(row + kGOut * width + i, out);
        store(row + kGy * width + i, out * z * s);
      } else {
        store(row + kGy * width + i, out);
      }
    }
  }
}

// Gradients of the token's own inputs. `first`: no other group has written to x's and B's columns before.
template <class Scalar, int kState>
MOLT_INLINE void store_gradients(const Arguments& a, const Gradients& to, const BackwardWork<Scalar>& w, std::int64_t group,
                                 std::int64_t begin, std::int64_t count, bool first) {
  using Vector = Lanes<Scalar>;
  const std::int64_t state = kState ? kState : w.state, width = padded<Scalar>(state), column = group * state;
  const bool add_x = !first && a.x_columns != a.d_inner;
  for (std::int64_t t = 0; t < count; ++t) {
    const std::int64_t token = begin + t, in_row = token * a.d_inner + column;
    const Scalar* row = w.row(t, kDt, width);
    Scalar* gx = as<Scalar>(to.x) + token * a.x_columns + x_column(a, group);
    Scalar* gB = as<Scalar>(to.B) + token * a.d_xb + B_column(a, group);
    Scalar *gdt = as<Scalar>(to.dt) + in_row, *gC = as<Scalar>(to.C) + in_row;
    Scalar* gz = to.z ? as<Scalar>(to.z) + in_row : nullptr;
    prefetch_to_write(gx, a.x_columns), prefetch_to_write(gB, a.d_xb), prefetch_to_write(gdt, a.d_inner);
    prefetch_to_write(gC, a.d_inner);
    if (gz) prefetch_to_write(gz, a.d_inner);
    for (std::int64_t i = 0; i < width; i += kLanes<Scalar>) {
      const Scalar* at = row + i;
      const std::int64_t left = state - i;
      const Vector x = load(at + kX * width), gy = load(at + kGy * width), gu = load(at + kGu * width), D = load(w.D + i);
      store(gx + i, load(at + kDt * width) * gu + D * gy + (add_x ? load(gx + i, left) : Vector{}), left);
      const Vector step = (x * gu + load(at + kGdt * width) * static_cast<Scalar>(kLn2)) * load(at + kSlope * width);
      store(gdt + i, step, left);
      store(w.gbias + i, load(w.gbias + i) + step);
      store(w.gD + i, load(w.gD + i) + gy * x);
      if (gz) {
        const Vector s = load(at + kGate * width);
        store(gz + i, load(at + kGOut * width) * (load(at + kY * width) + D * x) * s * (1 + load(at + kZ * width) * (1 - s)),
              left);
      }
      store(gC + i, load(at + kGC * width), left);
      store(gB + i, load(at + kGB * width) + (first ? Vector{} : load(gB + i, left)), left);
    }
  }
}

template <class Scalar, int kState>
MOLT_INLINE void reverse_sequence(const Arguments& a, const Gradients& to, BackwardWork<Scalar>& w, std::int64_t sequence,
                                  std::int64_t group, bool first) {
  const std::int64_t state = w.state, width = w.width, begin = a.offsets[sequence], length = a.offsets[sequence + 1] - begin;
  const std::int64_t in_states = (sequence * a.d_inner + group * state) * state;
  load_state(w.square(0, kAdjoint, width), to.final_state ? as<Scalar>(to.final_state) + in_states : nullptr, state,
             kBackwardSquares * width);
  for (std::int64_t chunk = (length + kChunk - 1) / kChunk - 1; chunk >= 0; --chunk) {
    const std::int64_t start = begin + chunk * kChunk, count = std::min(kChunk, length - chunk * kChunk);
    w.h = kept_state<Scalar>(a, sequence, chunk, group);
    load_tokens<Scalar, kState>(a, w, group, start, count);
    load_gradients<Scalar, kState>(a, to, w, group, start, count);
    for (std::int64_t lane = 0; lane < width; lane += kLanes<Scalar>) {
      recompute_lanes<Scalar, kState>(w, lane, count);
      reverse_lanes<Scalar, kState>(w, lane, count);
    }
    store_gradients<Scalar, kState>(a, to, w, group, start, count, first);
  }
  if (to.initial_state)
    store_state(as<Scalar>(to.initial_state) + in_states, w.square(0, kAdjoint, width), state, kBackwardSquares * width);
}

// Shares of the gradients that are sums over all tokens.
template <class Scalar>
MOLT_INLINE void store_sums(const Arguments& a, const Gradients& to, const BackwardWork<Scalar>& w, std::int64_t group,
                            std::int64_t part) {
  const std::int64_t channel = part * a.d_inner + group * w.state;
  for (std::int64_t n = 0; n < w.state; ++n) {
    for (std::int64_t i = 0; i < w.width; ++i)
      w.square(n, kGA, w.width)[i] *= w.square(n, kA, w.width)[i] * static_cast<Scalar>(kLn2);
  }
  store_state(as<Scalar>(to.A_log) + channel * w.state, w.square(0, kGA, w.width), w.state, kBackwardSquares * w.width);
  if (to.dt_bias) std::copy(w.gbias, w.gbias + w.state, as<Scalar>(to.dt_bias) + channel);
  if (to.D) std::copy(w.gD, w.gD + w.state, as<Scalar>(to.D) + channel);
}

// A task is one group of B in one part of the sequences: it alone writes to its columns of x and B.
template <class Scalar, int kState>
MOLT_INLINE void reverse_tasks(const Arguments& a, const Gradients& to, std::int64_t begin, std::int64_t end) {
  BackwardWork<Scalar> w(a);
  const std::int64_t repeat = a.d_inner / a.d_xb;
  for (std::int64_t task = begin; task < end; ++task) {
    const std::int64_t part = task % to.parts;
    for (std::int64_t r = 0; r < repeat; ++r) {
      const std::int64_t group = task / to.parts * repeat + r;
      load_group<Scalar>(a, w, group);
      for (std::int64_t n = 0; n < w.state; ++n) std::fill_n(w.square(n, kGA, w.width), w.width, 0);
      std::fill_n(w.gbias, w.width, 0);
      std::fill_n(w.gD, w.width, 0);
      for (std::int64_t s = a.sequences * part / to.parts; s < a.sequences * (part + 1) / to.parts; ++s) {
        reverse_sequence<Scalar, kState>(a, to, w, s, group, r == 0);
      }
      store_sums(a, to, w, group, part);
    }
  }
}
MOLT_CLONES void reverse_tasks_float_16(const Arguments& a, const Gradients& to, std::int64_t begin, std::int64_t end) {
  reverse_tasks<float, 16>(a, to, begin, end);
}
MOLT_CLONES void reverse_tasks_float(const Arguments& a, const Gradients& to, std::int64_t begin, std::int64_t end) {
  reverse_tasks<float, 0>(a, to, begin, end);
}
void reverse_tasks_double(const Arguments& a, const Gradients& to, std::int64_t begin, std::int64_t end) {
  reverse_tasks<double, 0>(a, to, begin, end);
}

}  // namespace backward_cpu

// Enough parts for 32 tasks, if there are as many sequences. Not by the number of threads, on which no sum may depend.
std::int64_t cpu_parts(const Arguments& a) {
  return std::clamp<std::int64_t>(32 * a.state / a.d_xb, 1, std::max<std::int64_t>(1, a.sequences));
}

void cpu_backward(const Arguments& a, const Gradients& gradients) {
  const std::int64_t tasks = gradients.parts * (a.d_xb / a.state);
  const auto run = a.type == DataType::float64 ? backward_cpu::reverse_tasks_double
                   : a.state == 16             ? backward_cpu::reverse_tasks_float_16
                                               : backward_cpu::reverse_tasks_float;
  at::parallel_for(0, tasks, grain(a, tasks), [&](std::int64_t begin, std::int64_t end) { run(a, gradients, begin, end); });
}

}  // namespace molt::ops::scan
