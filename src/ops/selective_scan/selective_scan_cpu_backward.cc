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

template <class F>
struct BackwardWork : Work<typename F::Scalar, kBackwardRows, kBackwardSquares> {
  using Scalar = typename F::Scalar;
  BackwardWork(const Arguments& a, std::int64_t groups) : Work<Scalar, kBackwardRows, kBackwardSquares>(a, groups) {
    auto& scratch = this->scratch;
    history = scratch.take((kCpuChunk + 1) * this->state * 2 * F::kBlock);
    products = scratch.take(2 * padded<Scalar>(this->state) * F::kStep);
    gbias = scratch.take(groups * this->width);
    gD = scratch.take(groups * this->width);
  }
  // (1 + kCpuChunk, state, 2, block): decay and state after each token of one block of channels; before the first, the chunk's
  // first state.
  Scalar* history;
  Scalar* products;    // (2, width, lanes): shares of the token's gradients of B and C, still to be summed over the lanes
  Scalar *gbias, *gD;  // (groups, width)
};

// The same of the gradient of y in the next place, and of the outputs in this one.
template <class Scalar>
MOLT_INLINE void prefetch_gradients(const Arguments& a, const Gradients& to, const Place& place, std::int64_t t,
                                    std::int64_t lane) {
  const std::int64_t token = place.begin + t, in_row = token * a.d_inner + place.column + lane;
  if (to.y) __builtin_prefetch(as<Scalar>(to.y) + (place.next_begin + t) * a.d_inner + place.next.column + lane, 0, 2);
  __builtin_prefetch(as<Scalar>(to.dt) + in_row, 1, 2);
  __builtin_prefetch(as<Scalar>(to.x) + token * a.x_columns + place.x + lane, 1, 2);
  __builtin_prefetch(as<Scalar>(to.B) + token * to.B_stride + place.B + lane, 1, 2);
  __builtin_prefetch(as<Scalar>(to.C) + token * to.C_stride + place.column + lane, 1, 2);
  if (to.z) __builtin_prefetch(as<Scalar>(to.z) + token * to.z_stride + place.column + lane, 1, 2);
}

// Decays, states and y of the block of channels that begins at `lane`, from the chunk's first state.
template <class F>
MOLT_INLINE void recompute_block(const Arguments& a, const Gradients& to, const BackwardWork<F>& w,
                                 const typename F::Scalar* kept, const Place& place, std::int64_t lane) {
  using Scalar = typename F::Scalar;
  using Vector = typename F::Vector;
  const std::int64_t state = F::kState ? F::kState : w.state, width = padded<Scalar>(state);
  const Vector limit = exponent_limit<Scalar, F::kBytes>();
  for (std::int64_t n = 0; n < state; ++n) std::copy_n(kept + n * width + lane, F::kBlock, w.history + (2 * n + 1) * F::kBlock);
  const Scalar* const A = w.square(place.slot, 0, kA, width) + lane;
  for (std::int64_t t = 0; t < place.count; ++t) {
    const Scalar* B = as<Scalar>(a.B) + (place.begin + t) * a.B_stride + place.B;
    const Scalar* C = as<Scalar>(a.C) + (place.begin + t) * a.C_stride + place.column;
    Scalar *row = w.row(t, kDt, width) + lane, *before = w.history + t * state * 2 * F::kBlock,
           *after = before + state * 2 * F::kBlock;
    prefetch_token<Scalar>(a, place, t, lane);
    prefetch_gradients<Scalar>(a, to, place, t, lane);
    Vector dt[F::kVectors], u[F::kVectors], y[F::kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < F::kVectors; ++v) {
      dt[v] = load<F::kBytes>(row + kDt * width + v * F::kStep);
      u[v] = dt[v] * load<F::kBytes>(row + kX * width + v * F::kStep);
      y[v] = Vector{};
    }
    for (std::int64_t n = 0; n < state; ++n) {
#pragma GCC unroll 2
      for (int v = 0; v < F::kVectors; ++v) {
        const std::int64_t decay_at = 2 * n * F::kBlock + v * F::kStep, state_at = decay_at + F::kBlock;
        const Vector kept = decay_over(dt[v], load<F::kBytes>(A + n * w.pitch(width) + v * F::kStep), limit);
        const Vector next = kept * load<F::kBytes>(before + state_at) + u[v] * B[n];
        store(after + decay_at, kept);
        store(after + state_at, next);
        y[v] += next * C[n];
      }
    }
#pragma GCC unroll 2
    for (int v = 0; v < F::kVectors; ++v) store(row + kY * width + v * F::kStep, y[v]);
  }
}

// Sums `products` over the lanes, adding what is there to those of C after the first block, and to those of B after the first
// of all blocks that share it.
template <class F>
MOLT_INLINE void store_sums_over_channels(const BackwardWork<F>& w, typename F::Scalar* gB, typename F::Scalar* gC, bool first_B,
                                          bool first_C) {
  using Scalar = typename F::Scalar;
  using Vector = typename F::Vector;
  const std::int64_t state = F::kState ? F::kState : w.state, width = padded<Scalar>(state);
#pragma GCC unroll 2
  for (int of = 0; of < 2; ++of) {
    Scalar* to = of ? gC : gB;
    for (std::int64_t n = 0; n < width; n += F::kStep) {
      Vector rows[F::kStep];
#pragma GCC unroll 16
      for (int k = 0; k < F::kStep; ++k) rows[k] = load<F::kBytes>(w.products + (of * width + n + k) * F::kStep);
      const Vector share = sums(rows);
      store(to + n, (of ? first_C : first_B) ? share : Vector(share + load<F::kBytes>(to + n, state - n)), state - n);
    }
  }
}

// The gradient of y before the gate.
template <class F>
MOLT_INLINE typename F::Vector gradient_of_y(const Arguments& a, const Gradients& to, const BackwardWork<F>& w,
                                             const Place& place, std::int64_t t, std::int64_t i) {
  using Scalar = typename F::Scalar;
  using Vector = typename F::Vector;
  const std::int64_t state = F::kState ? F::kState : w.state, column = place.column + i;
  if (!to.y) return Vector{};
  const Vector out = load<F::kBytes>(as<Scalar>(to.y) + (place.begin + t) * a.d_inner + column, state - i);
  if (!a.z) return out;
  const Vector z = load<F::kBytes>(as<Scalar>(a.z) + (place.begin + t) * a.z_stride + column, state - i), s = sigmoid(z);
  store(w.row(t, kGate, padded<Scalar>(state)) + i, s);
  return out * z * s;
}

// Gradients of a token's own inputs, and their sums over tokens.
template <class F>
MOLT_INLINE void store_gradients(const Arguments& a, const Gradients& to, const BackwardWork<F>& w, const Place& place,
                                 std::int64_t t, std::int64_t i, const typename F::Vector& gy, const typename F::Vector& gu,
                                 const typename F::Vector& gdt, bool first) {
  using Scalar = typename F::Scalar;
  using Vector = typename F::Vector;
  const std::int64_t state = F::kState ? F::kState : w.state, width = padded<Scalar>(state), left = state - i;
  const std::int64_t token = place.begin + t, column = place.column + i, in_row = token * a.d_inner + column;
  const Scalar* row = w.row(t, kDt, width) + i;
  Scalar *gbias = w.gbias + place.slot * width + i, *gD = w.gD + place.slot * width + i;
  const Vector x = load<F::kBytes>(row + kX * width), D = load<F::kBytes>(w.D + place.slot * width + i);

  Scalar* gx = as<Scalar>(to.x) + token * a.x_columns + place.x + i;
  const bool add_x = !first && a.x_columns != a.d_inner;
  store(gx, Vector(load<F::kBytes>(row + kDt * width) * gu + D * gy + (add_x ? load<F::kBytes>(gx, left) : Vector{})), left);
  const Vector step = (x * gu + gdt * static_cast<Scalar>(kLn2)) * load<F::kBytes>(row + kSlope * width);
  store(as<Scalar>(to.dt) + in_row, step, left);
  store(gbias, load<F::kBytes>(gbias) + step);
  store(gD, load<F::kBytes>(gD) + gy * x);
  if (to.z) {
    const Vector out = to.y ? load<F::kBytes>(as<Scalar>(to.y) + in_row, left) : Vector{};
    const Vector z = load<F::kBytes>(as<Scalar>(a.z) + token * a.z_stride + column, left);
    const Vector s = load<F::kBytes>(row + kGate * width);
    store(as<Scalar>(to.z) + token * to.z_stride + column,
          Vector(out * (load<F::kBytes>(row + kY * width) + D * x) * s * (1 + z * (1 - s))), left);
  }
}

// Back through a place. `first`: no other group has written to x's and B's columns before.
template <class F>
MOLT_INLINE void reverse_block(const Arguments& a, const Gradients& to, const BackwardWork<F>& w, const Place& place,
                               std::int64_t lane, bool first) {
  using Scalar = typename F::Scalar;
  using Vector = typename F::Vector;
  const std::int64_t state = F::kState ? F::kState : w.state, width = padded<Scalar>(state);
  Scalar* const squares = w.square(place.slot, 0, kA, width) + lane;
  for (std::int64_t t = place.count - 1; t >= 0; --t) {
    const std::int64_t token = place.begin + t;
    const Scalar* B = as<Scalar>(a.B) + token * a.B_stride + place.B;
    const Scalar* C = as<Scalar>(a.C) + token * a.C_stride + place.column;
    const Scalar* row = w.row(t, kDt, width) + lane;
    const Scalar *before = w.history + t * state * 2 * F::kBlock, *after = before + state * 2 * F::kBlock;
    Vector dt[F::kVectors], u[F::kVectors], gy[F::kVectors], gu[F::kVectors], gdt[F::kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < F::kVectors; ++v) {
      dt[v] = load<F::kBytes>(row + kDt * width + v * F::kStep);
      u[v] = dt[v] * load<F::kBytes>(row + kX * width + v * F::kStep);
      gy[v] = gradient_of_y<F>(a, to, w, place, t, lane + v * F::kStep);
      gu[v] = gdt[v] = Vector{};
    }
    for (std::int64_t n = 0; n < state; ++n) {
      Vector of_B = {}, of_C = {};
#pragma GCC unroll 2
      for (int v = 0; v < F::kVectors; ++v) {
        Scalar* square = squares + n * w.pitch(width) + v * F::kStep;
        const std::int64_t decay_at = 2 * n * F::kBlock + v * F::kStep, state_at = decay_at + F::kBlock;
        const Vector g = load<F::kBytes>(square + kAdjoint * width) + gy[v] * C[n];
        of_B = v ? Vector(of_B + g * u[v]) : Vector(g * u[v]);
        of_C = v ? Vector(of_C + gy[v] * load<F::kBytes>(after + state_at)) : Vector(gy[v] * load<F::kBytes>(after + state_at));
        gu[v] += g * B[n];
        const Vector decayed = g * load<F::kBytes>(after + decay_at);
        const Vector q = decayed * load<F::kBytes>(before + state_at);
        gdt[v] += q * load<F::kBytes>(square + kA * width);
        store(square + kGA * width, load<F::kBytes>(square + kGA * width) + q * dt[v]);
        store(square + kAdjoint * width, decayed);
      }
      store(w.products + n * F::kStep, of_B);
      store(w.products + (width + n) * F::kStep, of_C);
    }
    store_sums_over_channels<F>(w, as<Scalar>(to.B) + token * to.B_stride + place.B,
                                as<Scalar>(to.C) + token * to.C_stride + place.column, first && lane == 0, lane == 0);
#pragma GCC unroll 2
    for (int v = 0; v < F::kVectors; ++v)
      store_gradients<F>(a, to, w, place, t, lane + v * F::kStep, gy[v], gu[v], gdt[v], first);
  }
}

// B-groups `first` … `last` - 1 through one sequence.
template <class F>
MOLT_INLINE void reverse_sequence(const Arguments& a, const Gradients& to, const BackwardWork<F>& w, std::int64_t sequence,
                                  std::int64_t first, std::int64_t last) {
  using Scalar = typename F::Scalar;
  const std::int64_t state = w.state, width = w.width, begin = a.offsets[sequence], length = a.offsets[sequence + 1] - begin;
  const std::int64_t repeat = a.d_inner / a.d_xb, in_state = state * state, in_states = sequence * a.d_inner * state;
  for (std::int64_t group = first; group < last; ++group) {
    load_state(w.square(group - first, 0, kAdjoint, width),
               to.final_state ? as<Scalar>(to.final_state) + in_states + group * in_state : nullptr, state, w.pitch(width));
  }
  for (std::int64_t chunk = (length + kCpuChunk - 1) / kCpuChunk - 1; chunk >= 0; --chunk) {
    const std::int64_t start = begin + chunk * kCpuChunk, count = std::min(kCpuChunk, length - chunk * kCpuChunk);
    for (std::int64_t group = first; group < last; ++group) {
      const bool ends = group + 1 == last;
      const Place place(a, group, group - first, start, count, Columns(a, ends ? first : group + 1),
                        ends ? start - kCpuChunk : start);
      load_tokens<F>(a, w, place);
      for (std::int64_t lane = 0; lane < width; lane += F::kBlock) {
        recompute_block<F>(a, to, w, kept_state<Scalar>(a, sequence, chunk, group), place, lane);
        reverse_block<F>(a, to, w, place, lane, group % repeat == 0);
      }
    }
  }
  for (std::int64_t group = first; to.initial_state && group < last; ++group) {
    store_state(as<Scalar>(to.initial_state) + in_states + group * in_state, w.square(group - first, 0, kAdjoint, width), state,
                w.pitch(width));
  }
}

// Shares of the gradients that are sums over all tokens.
template <class F>
MOLT_INLINE void store_sums(const Arguments& a, const Gradients& to, const BackwardWork<F>& w, std::int64_t slot,
                            std::int64_t group, std::int64_t part) {
  using Scalar = typename F::Scalar;
  const std::int64_t channel = part * a.d_inner + group * w.state;
  for (std::int64_t n = 0; n < w.state; ++n) {
    for (std::int64_t i = 0; i < w.width; ++i)
      w.square(slot, n, kGA, w.width)[i] *= w.square(slot, n, kA, w.width)[i] * static_cast<Scalar>(kLn2);
  }
  store_state(as<Scalar>(to.A_log) + channel * w.state, w.square(slot, 0, kGA, w.width), w.state, w.pitch(w.width));
  if (to.dt_bias) std::copy_n(w.gbias + slot * w.width, w.state, as<Scalar>(to.dt_bias) + channel);
  if (to.D) std::copy_n(w.gD + slot * w.width, w.state, as<Scalar>(to.D) + channel);
}

// A task is a panel of groups with whole groups of B in one part of the sequences: it alone writes to its columns of x and B.
template <class F>
MOLT_INLINE void reverse_tasks(const Arguments& a, const Gradients& to, std::int64_t panel, std::int64_t begin,
                               std::int64_t end) {
  using Scalar = typename F::Scalar;
  const BackwardWork<F> w(a, panel);
  for (std::int64_t task = begin; task < end; ++task) {
    const std::int64_t part = task % to.parts;
    const std::int64_t first = task / to.parts * panel, last = std::min(first + panel, a.d_inner / a.state);
    for (std::int64_t group = first; group < last; ++group) {
      const std::int64_t slot = group - first;
      load_group<Scalar>(a, w, slot, group);
      for (std::int64_t n = 0; n < w.state; ++n) std::fill_n(w.square(slot, n, kGA, w.width), w.width, 0);
      std::fill_n(w.gbias + slot * w.width, w.width, 0);
      std::fill_n(w.gD + slot * w.width, w.width, 0);
    }
    for (std::int64_t s = a.sequences * part / to.parts; s < a.sequences * (part + 1) / to.parts; ++s) {
      reverse_sequence<F>(a, to, w, s, first, last);
    }
    for (std::int64_t group = first; group < last; ++group) store_sums<F>(a, to, w, group - first, group, part);
  }
}
MOLT_WIDE void reverse_tasks_float_16_wide(const Arguments& a, const Gradients& to, std::int64_t panel, std::int64_t begin,
                                           std::int64_t end) {
  reverse_tasks<Float16Wide>(a, to, panel, begin, end);
}
MOLT_CLONES void reverse_tasks_float_16(const Arguments& a, const Gradients& to, std::int64_t panel, std::int64_t begin,
                                        std::int64_t end) {
  reverse_tasks<Float16>(a, to, panel, begin, end);
}
MOLT_CLONES void reverse_tasks_float(const Arguments& a, const Gradients& to, std::int64_t panel, std::int64_t begin,
                                     std::int64_t end) {
  reverse_tasks<AnyFloat>(a, to, panel, begin, end);
}
void reverse_tasks_double(const Arguments& a, const Gradients& to, std::int64_t panel, std::int64_t begin, std::int64_t end) {
  reverse_tasks<AnyDouble>(a, to, panel, begin, end);
}

}  // namespace backward_cpu

// Enough parts for 32 tasks, if there are as many sequences. Not by the number of threads, on which no sum may depend.
std::int64_t cpu_parts(const Arguments& a) {
  return std::clamp<std::int64_t>(32 * a.state / a.d_xb, 1, std::max<std::int64_t>(1, a.sequences));
}

void cpu_backward(const Arguments& a, const Gradients& gradients) {
  const std::int64_t groups = a.d_xb / a.state, repeat = a.d_inner / a.d_xb;
  const std::int64_t panel = panel_size(groups * gradients.parts, repeat, a.state, at::get_num_threads());
  const std::int64_t tasks = gradients.parts * ((groups + panel - 1) / panel);
  const auto run = a.type == DataType::float64 ? backward_cpu::reverse_tasks_double
                   : a.state != 16             ? backward_cpu::reverse_tasks_float
                   : has_wide_lanes()          ? backward_cpu::reverse_tasks_float_16_wide
                                               : backward_cpu::reverse_tasks_float_16;
  at::parallel_for(0, tasks, grain(a, tasks),
                   [&](std::int64_t begin, std::int64_t end) { run(a, gradients, panel * repeat, begin, end); });
}

}  // namespace molt::ops::scan
