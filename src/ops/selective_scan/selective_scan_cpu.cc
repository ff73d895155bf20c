// The selective scan on the CPU, forward and one token at a time. In float32 the work is one exponential for each token, channel
// and state: 12 instructions on 8 of them, of 17 in the inner loop, so that arithmetic, not memory, sets the floor.
#include "ops/selective_scan/selective_scan_cpu.h"

#include <ATen/Parallel.h>

namespace molt::ops::scan {

namespace forward_cpu {

// `count` tokens of the vector of channels that begins at `lane`.
template <class Scalar, int kState>
MOLT_INLINE void scan_lanes(const Work<Scalar>& w, std::int64_t lane, std::int64_t count) {
  const std::int64_t state = kState ? kState : w.state, width = padded<Scalar>(state);
  const Lanes<Scalar> lowest = splat_unseen<Scalar>(-126);
  for (std::int64_t t = 0; t < count; ++t) {
    Scalar* row = w.row(t, kDt, width);
    const Lanes<Scalar> dt = load(row + kDt * width + lane), u = load(row + kU * width + lane);
    Lanes<Scalar> y = {};
    for (std::int64_t n = 0; n < state; ++n) {
      const Lanes<Scalar> a = exp2_in_range(larger(lowest, dt * load(w.square(n, kA, width) + lane)));
      const Lanes<Scalar> next = a * load(w.h + n * width + lane) + u * row[kB * width + n];
      store(w.h + n * width + lane, next);
      y += next * row[kC * width + n];
    }
    store(row + kY * width + lane, y);
  }
}

// Skip and gate, and out.
template <class Scalar, int kState>
MOLT_INLINE void store_outputs(const Arguments& a, const Work<Scalar>& w, std::int64_t group, std::int64_t begin,
                               std::int64_t count) {
  const std::int64_t state = kState ? kState : w.state, width = padded<Scalar>(state), column = group * state;
  for (std::int64_t t = 0; t < count; ++t) {
    Scalar* to = as<Scalar>(a.y) + (begin + t) * a.d_inner + column;
    const Scalar* gate = a.z ? as<Scalar>(a.z) + (begin + t) * a.z_stride + column : nullptr;
    if (gate) prefetch(gate, a.z_stride);
    prefetch_to_write(to, a.d_inner);
    for (std::int64_t i = 0; i < width; i += kLanes<Scalar>) {
      Lanes<Scalar> y = load(w.row(t, kY, width) + i) + load(w.D + i) * load(w.row(t, kX, width) + i);
      if (gate) {
        const Lanes<Scalar> z = load(gate + i, state - i);
        y *= z * sigmoid(z);
      }
      store(to + i, y, state - i);
    }
  }
}

template <class Scalar, int kState>
MOLT_INLINE void scan_sequence(const Arguments& a, Work<Scalar>& w, std::int64_t sequence, std::int64_t group) {
  const std::int64_t state = w.state, width = w.width, begin = a.offsets[sequence], end = a.offsets[sequence + 1];
  const std::int64_t in_state = group * state * state, in_states = a.d_inner * state;
  load_group<Scalar>(a, w, group);
  const Scalar* initial = as<Scalar>(a.initial_state);
  load_state(w.h, initial ? initial + sequence * in_states + in_state : nullptr, state, width);

  std::int64_t wanted = a.position_count ? std::lower_bound(a.positions, a.positions + a.position_count, begin) - a.positions : 0;
  for (std::int64_t t = begin; t < end;) {
    const std::int64_t chunk = (t - begin) / kChunk;
    if (a.kept && t == begin + chunk * kChunk) {
      std::copy(w.h, w.h + state * width, kept_state<Scalar>(a, sequence, chunk, group));
    }
    std::int64_t stop = std::min(end, begin + (chunk + 1) * kChunk);
    const bool stops_at_wanted = wanted < a.position_count && a.positions[wanted] < stop;
    if (stops_at_wanted) stop = a.positions[wanted] + 1;

    load_tokens<Scalar, kState>(a, w, group, t, stop - t);
    for (std::int64_t lane = 0; lane < width; lane += kLanes<Scalar>) scan_lanes<Scalar, kState>(w, lane, stop - t);
    store_outputs<Scalar, kState>(a, w, group, t, stop - t);
    if (stops_at_wanted) store_state(as<Scalar>(a.states) + wanted++ * in_states + in_state, w.h, state, width);
    t = stop;
  }
  if (a.final_state) store_state(as<Scalar>(a.final_state) + sequence * in_states + in_state, w.h, state, width);
}

// Tasks count through the sequences of the first group, then of the next: threads share every sequence, whatever the lengths.
template <class Scalar, int kState>
MOLT_INLINE void scan_tasks(const Arguments& a, std::int64_t begin, std::int64_t end) {
  Work<Scalar> work(a);
  for (std::int64_t task = begin; task < end; ++task) {
    scan_sequence<Scalar, kState>(a, work, task % a.sequences, task / a.sequences);
  }
}
MOLT_CLONES void scan_tasks_float_16(const Arguments& a, std::int64_t begin, std::int64_t end) {
  scan_tasks<float, 16>(a, begin, end);
}
MOLT_CLONES void scan_tasks_float(const Arguments& a, std::int64_t begin, std::int64_t end) {
  scan_tasks<float, 0>(a, begin, end);
}
void scan_tasks_double(const Arguments& a, std::int64_t begin, std::int64_t end) {
  scan_tasks<double, 0>(a, begin, end);
}

// One token of each sequence for one group. States lie (channel, state) in the cache, and across vectors here: nothing is
// transposed.
template <class Scalar, int kState>
MOLT_INLINE void update_group(const Update& update, const Work<Scalar>& w, std::int64_t group) {
  const Arguments& a = update.arguments;
  const std::int64_t state = kState ? kState : w.state, width = padded<Scalar>(state), column = group * state;
  const Lanes<Scalar> lowest = splat_unseen<Scalar>(-126);
  Scalar *A = w.h, *row = w.tokens;  // A is (channel, width), as in the cache
  load_parameters<Scalar>(a, w, group);
  for (std::int64_t i = 0; i < state; ++i) {
    for (std::int64_t n = 0; n < width; n += kLanes<Scalar>) store(A + i * width + n, decay<Scalar>(a, column + i, n));
  }
  for (std::int64_t token = 0; token < a.tokens; ++token) {
    const std::int64_t slot = update.wide_slots ? as<std::int64_t>(update.slots)[token] : as<std::int32_t>(update.slots)[token];
    Scalar* h = as<Scalar>(update.cache) + (slot * a.d_inner + column) * state;
    load_tokens<Scalar, kState>(a, w, group, token, 1);
    for (std::int64_t i = 0; i < width; i += kLanes<Scalar>) {
      for (std::int64_t k = 0; k < kLanes<Scalar> && i + k < state; ++k) {
        const Scalar dt = row[kDt * width + i + k], u = row[kU * width + i + k];
        Lanes<Scalar> y = {};
        for (std::int64_t n = 0; n < width; n += kLanes<Scalar>) {
          Scalar* place = h + (i + k) * state + n;
          const Lanes<Scalar> kept = exp2_in_range(larger(lowest, dt * load(A + (i + k) * width + n)));
          const Lanes<Scalar> next = kept * load(place, state - n) + u * load(row + kB * width + n);
          store(place, next, state - n);
          y += next * load(row + kC * width + n);
        }
        store(w.products + k * kLanes<Scalar>, y);
      }
      Lanes<Scalar> rows[kLanes<Scalar>];
#pragma GCC unroll 8
      for (int k = 0; k < kLanes<Scalar>; ++k) rows[k] = load(w.products + k * kLanes<Scalar>);
      store(row + kY * width + i, sums(rows));
    }
    store_outputs<Scalar, kState>(a, w, group, token, 1);
  }
}

template <class Scalar, int kState>
MOLT_INLINE void update_groups(const Update& update, std::int64_t begin, std::int64_t end) {
  const Work<Scalar> work(update.arguments);
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

}  // namespace forward_cpu

std::int64_t cpu_state_size(const Arguments& a) {
  const std::int64_t width = a.type == DataType::float64 ? padded<double>(a.state) : padded<float>(a.state);
  return a.d_inner * width;
}

void cpu_forward(const Arguments& a) {
  const std::int64_t tasks = a.sequences * (a.d_inner / a.state);
  const auto run = a.type == DataType::float64 ? forward_cpu::scan_tasks_double
                   : a.state == 16             ? forward_cpu::scan_tasks_float_16
                                               : forward_cpu::scan_tasks_float;
  at::parallel_for(0, tasks, grain(a, tasks), [&](std::int64_t begin, std::int64_t end) { run(a, begin, end); });
}

void cpu_update(const Update& update) {
  const std::int64_t groups = update.arguments.d_inner / update.arguments.state;
  const auto run = update.arguments.type == DataType::float64 ? forward_cpu::update_groups_double
                   : update.arguments.state == 16             ? forward_cpu::update_groups_float_16
                                                              : forward_cpu::update_groups_float;
  at::parallel_for(0, groups, grain(update.arguments, groups),
                   [&](std::int64_t begin, std::int64_t end) { run(update, begin, end); });
}

}  // namespace molt::ops::scan
