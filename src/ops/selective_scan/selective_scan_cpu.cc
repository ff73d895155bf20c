// The selective scan on the CPU, forward. In float32 the work is one exponential for each token, channel and state: 11
// instructions on a vector of them, of 14 in the inner loop, so that arithmetic, not memory, sets the floor.
#include "ops/selective_scan/selective_scan_cpu.h"

#include <ATen/Parallel.h>

namespace molt::ops::scan {

namespace forward_cpu {

// A place's states and y for the block of channels that begins at `lane`.
template <class F>
MOLT_INLINE void scan_block(const Arguments& a, const Work<typename F::Scalar>& w, const Place& place, std::int64_t lane) {
  using Scalar = typename F::Scalar;
  using Vector = typename F::Vector;
  const std::int64_t state = F::kState ? F::kState : w.state, width = padded<Scalar>(state);
  const Vector limit = exponent_limit<Scalar, F::kBytes>();
  Scalar* const squares = w.square(place.slot, 0, kA, width) + lane;
  for (std::int64_t t = 0; t < place.count; ++t) {
    const Scalar* B = as<Scalar>(a.B) + (place.begin + t) * a.B_stride + place.B;
    const Scalar* C = as<Scalar>(a.C) + (place.begin + t) * a.C_stride + place.column;
    Scalar* row = w.row(t, kDt, width) + lane;
    prefetch_token<Scalar>(a, place, t, lane);
    __builtin_prefetch(as<Scalar>(a.y) + (place.begin + t) * a.d_inner + place.column + lane, 1);
    Vector dt[F::kVectors], u[F::kVectors], y[F::kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < F::kVectors; ++v) {
      dt[v] = load<F::kBytes>(row + kDt * width + v * F::kStep);
      u[v] = dt[v] * load<F::kBytes>(row + kX * width + v * F::kStep);
      y[v] = Vector{};
    }
    for (std::int64_t n = 0; n < state; ++n) {
      Scalar* square = squares + n * w.pitch(width);
#pragma GCC unroll 2
      for (int v = 0; v < F::kVectors; ++v) {
        const Vector kept = decay_over(dt[v], load<F::kBytes>(square + kA * width + v * F::kStep), limit);
        const Vector next = kept * load<F::kBytes>(square + kH * width + v * F::kStep) + u[v] * B[n];
        store(square + kH * width + v * F::kStep, next);
        y[v] += next * C[n];
      }
    }
#pragma GCC unroll 2
    for (int v = 0; v < F::kVectors; ++v) store(row + kY * width + v * F::kStep, y[v]);
  }
}

// Skip and gate, and out.
template <class F>
MOLT_INLINE void store_outputs(const Arguments& a, const Work<typename F::Scalar>& w, const Place& place) {
  using Scalar = typename F::Scalar;
  using Vector = typename F::Vector;
  const std::int64_t state = F::kState ? F::kState : w.state, width = padded<Scalar>(state), column = place.column;
  const Scalar* D = w.D + place.slot * width;
  for (std::int64_t t = 0; t < place.count; ++t) {
    Scalar* to = as<Scalar>(a.y) + (place.begin + t) * a.d_inner + column;
    const Scalar* gate = a.z ? as<Scalar>(a.z) + (place.begin + t) * a.z_stride + column : nullptr;
    for (std::int64_t i = 0; i < width; i += F::kStep) {
      const Scalar* row = w.row(t, kDt, width) + i;
      Vector y = load<F::kBytes>(row + kY * width) + load<F::kBytes>(D + i) * load<F::kBytes>(row + kX * width);
      if (gate) {
        const Vector z = load<F::kBytes>(gate + i, state - i);
        y *= z * sigmoid(z);
      }
      store(to + i, y, state - i);
    }
  }
}

// Groups `first` … `last` - 1 through one sequence. Their parameters are in `w`.
template <class F>
MOLT_INLINE void scan_sequence(const Arguments& a, const Work<typename F::Scalar>& w, std::int64_t sequence, std::int64_t first,
                               std::int64_t last) {
  using Scalar = typename F::Scalar;
  const std::int64_t state = w.state, width = w.width, begin = a.offsets[sequence], end = a.offsets[sequence + 1];
  const std::int64_t in_state = state * state, in_states = a.d_inner * state;
  const Scalar* initial = as<Scalar>(a.initial_state);
  for (std::int64_t group = first; group < last; ++group) {
    load_state(w.square(group - first, 0, kH, width), initial ? initial + sequence * in_states + group * in_state : nullptr,
               state, w.pitch(width));
  }
  std::int64_t wanted = a.position_count ? std::lower_bound(a.positions, a.positions + a.position_count, begin) - a.positions : 0;
  for (std::int64_t t = begin; t < end;) {
    const std::int64_t chunk = (t - begin) / kCpuChunk;
    std::int64_t stop = std::min(end, begin + (chunk + 1) * kCpuChunk);
    const bool stops_at_wanted = wanted < a.position_count && a.positions[wanted] < stop;
    if (stops_at_wanted) stop = a.positions[wanted] + 1;
    for (std::int64_t group = first; group < last; ++group) {
      const bool ends = group + 1 == last;
      const Place place(a, group, group - first, t, stop - t, Columns(a, ends ? first : group + 1), ends ? stop : t);
      Scalar* h = w.square(place.slot, 0, kH, width);
      if (a.kept && t == begin + chunk * kCpuChunk) {
        Scalar* kept = kept_state<Scalar>(a, sequence, chunk, group);
        for (std::int64_t n = 0; n < state; ++n) std::copy_n(h + n * w.pitch(width), width, kept + n * width);
      }
      load_tokens<F>(a, w, place);
      for (std::int64_t lane = 0; lane < width; lane += F::kBlock) scan_block<F>(a, w, place, lane);
      store_outputs<F>(a, w, place);
      if (stops_at_wanted) store_state(as<Scalar>(a.states) + wanted * in_states + group * in_state, h, state, w.pitch(width));
    }
    wanted += stops_at_wanted;
    t = stop;
  }
  for (std::int64_t group = first; a.final_state && group < last; ++group) {
    store_state(as<Scalar>(a.final_state) + sequence * in_states + group * in_state, w.square(group - first, 0, kH, width), state,
                w.pitch(width));
  }
}

// Tasks count through the sequences of the first panel of groups, then of the next: threads share every sequence, whatever the
// lengths.
template <class F>
MOLT_INLINE void scan_tasks(const Arguments& a, std::int64_t panel, std::int64_t begin, std::int64_t end) {
  const Work<typename F::Scalar> work(a, panel);
  std::int64_t loaded = -1;
  for (std::int64_t task = begin; task < end; ++task) {
    const std::int64_t first = task / a.sequences * panel, last = std::min(first + panel, a.d_inner / a.state);
    for (std::int64_t group = first; loaded != first && group < last; ++group) {
      load_group<typename F::Scalar>(a, work, group - first, group);
    }
    loaded = first;
    scan_sequence<F>(a, work, task % a.sequences, first, last);
  }
}
MOLT_WIDE void scan_tasks_float_16_wide(const Arguments& a, std::int64_t panel, std::int64_t begin, std::int64_t end) {
  scan_tasks<Float16Wide>(a, panel, begin, end);
}
MOLT_CLONES void scan_tasks_float_16(const Arguments& a, std::int64_t panel, std::int64_t begin, std::int64_t end) {
  scan_tasks<Float16>(a, panel, begin, end);
}
MOLT_CLONES void scan_tasks_float(const Arguments& a, std::int64_t panel, std::int64_t begin, std::int64_t end) {
  scan_tasks<AnyFloat>(a, panel, begin, end);
}
void scan_tasks_double(const Arguments& a, std::int64_t panel, std::int64_t begin, std::int64_t end) {
  scan_tasks<AnyDouble>(a, panel, begin, end);
}

}  // namespace forward_cpu

std::int64_t cpu_state_size(const Arguments& a) {
  const std::int64_t width = a.type == DataType::float64 ? padded<double>(a.state) : padded<float>(a.state);
  return a.d_inner * width;
}

void cpu_forward(const Arguments& a) {
  const std::int64_t groups = a.d_inner / a.state;
  const std::int64_t panel = panel_size(groups * a.sequences, 1, a.state, at::get_num_threads());
  const std::int64_t tasks = a.sequences * ((groups + panel - 1) / panel);
  const auto run = a.type == DataType::float64 ? forward_cpu::scan_tasks_double
                   : a.state != 16             ? forward_cpu::scan_tasks_float
                   : has_wide_lanes()          ? forward_cpu::scan_tasks_float_16_wide
                                               : forward_cpu::scan_tasks_float_16;
  at::parallel_for(0, tasks, grain(a, tasks), [&](std::int64_t begin, std::int64_t end) { run(a, panel, begin, end); });
}

}  // namespace molt::ops::scan
