// The causal convolution on the CPU, with channels across vectors. A strip is a run of columns whose rows are contiguous, and all
// the channels that read it: 64 columns where nothing is repeated, one group of columns otherwise. Per element a few
// multiplications and the exponential of SiLU; reading x and writing y bounds it on all but few cores.
#include <ATen/Parallel.h>

#include <algorithm>
#include <vector>

#include "ops/causal_conv/causal_conv_kernels.h"
#include "ops/lanes.h"

namespace molt::ops::conv {

namespace conv_cpu {

constexpr std::int64_t kStripColumns = 64;

std::int64_t strip_columns(const Arguments& a) {
  return a.repeat == 1 ? kStripColumns : a.group_size;
}
std::int64_t strip_count(const Arguments& a) {
  return (a.columns + strip_columns(a) - 1) / strip_columns(a);
}

// One strip for one of the repeats that read it.
struct Strip {
  Strip(const Arguments& a, std::int64_t index, std::int64_t r)
      : column(index * strip_columns(a)),
        size(std::min(strip_columns(a), a.columns - column)),
        channel(column * a.repeat + r * size) {}
  std::int64_t column, size, channel;  // the first column, how many there are, the first channel
};

template <class Scalar>
const Scalar* as(const void* pointer) {
  return static_cast<const Scalar*>(pointer);
}
template <class Scalar>
Scalar* as(void* pointer) {
  return static_cast<Scalar*>(pointer);
}

// One thread's arrays for one strip, padded to whole vectors.
template <class Scalar>
struct Work {
  explicit Work(const Arguments& a)
      : pitch(padded<Scalar>(strip_columns(a))),
        weight(a.width * pitch),
        bias(pitch),
        sums((a.width + 1) * pitch),
        window(3 * pitch) {}
  std::int64_t pitch;
  std::vector<Scalar> weight;  // (width, pitch)
  std::vector<Scalar> bias;    // (pitch)
  std::vector<Scalar> sums;    // (width + 1, pitch): gradients of weight and bias
  std::vector<Scalar> window;  // (width - 1, pitch): the rows before the sequence
};

template <class Scalar>
MOLT_INLINE void load_strip(const Arguments& a, const Strip& strip, Work<Scalar>& w) {
  for (std::int64_t i = 0; i < strip.size; ++i) {
    const Scalar* taps = as<Scalar>(a.weight) + (strip.channel + i) * a.width;
    for (std::int64_t k = 0; k < a.width; ++k) w.weight[k * w.pitch + i] = taps[k];
    w.bias[i] = a.bias ? as<Scalar>(a.bias)[strip.channel + i] : 0;
  }
}

// Between rows (column, width - 1) of a tensor, oldest first, and the work array; a null tensor is zero.
template <class Scalar>
MOLT_INLINE void load_window(const Arguments& a, const Strip& strip, const Scalar* from, Work<Scalar>& w) {
  for (std::int64_t k = 0; k + 1 < a.width; ++k) {
    for (std::int64_t i = 0; i < strip.size; ++i) {
      w.window[k * w.pitch + i] = from ? from[(strip.column + i) * (a.width - 1) + k] : 0;
    }
  }
}

// Row `t` of a sequence that begins at `begin`, where rows before it are those of the window.
template <class Scalar>
MOLT_INLINE const Scalar* row_of(const Arguments& a, const Strip& strip, const Work<Scalar>& w, std::int64_t begin,
                                 std::int64_t t) {
  if (t >= begin) return as<Scalar>(a.x) + t * a.x_stride + strip.column;
  return w.window.data() + (t - begin + a.width - 1) * w.pitch;
}

// The rows that token `t` sees, oldest first.
template <class Scalar>
MOLT_INLINE void rows_seen(const Arguments& a, const Strip& strip, const Work<Scalar>& w, std::int64_t begin, std::int64_t t,
                           const Scalar** rows) {
  for (std::int64_t k = 0; k < a.width; ++k) rows[k] = row_of(a, strip, w, begin, t - (a.width - 1) + k);
}

// Channels i … of the convolution of `rows`, before SiLU.
template <class Scalar>
MOLT_INLINE Lanes<Scalar> convolve(const Arguments& a, const Work<Scalar>& w, const Scalar** rows, std::int64_t i,
                                   std::int64_t left) {
  Lanes<Scalar> value = load(w.bias.data() + i);
  for (std::int64_t k = 0; k < a.width; ++k) value += load(w.weight.data() + k * w.pitch + i) * load(rows[k] + i, left);
  return value;
}

// A task is one strip of one sequence; tasks count through the sequences of the first strip, then of the next.
template <class Scalar>
MOLT_INLINE void forward_tasks(const Arguments& a, std::int64_t first, std::int64_t last) {
  Work<Scalar> w(a);
  for (std::int64_t task = first; task < last; ++task) {
    const std::int64_t s = task % a.sequences, begin = a.offsets[s], end = a.offsets[s + 1];
    const Scalar* initial = a.initial_window ? as<Scalar>(a.initial_window) + s * a.columns * (a.width - 1) : nullptr;
    for (std::int64_t r = 0; r < a.repeat; ++r) {
      const Strip strip(a, task / a.sequences, r);
      load_strip(a, strip, w);
      load_window(a, strip, initial, w);
      for (std::int64_t t = begin; t < end; ++t) {
        const Scalar* rows[4];
        rows_seen(a, strip, w, begin, t, rows);
        Scalar* y = as<Scalar>(a.y) + t * a.channels + strip.channel;
        for (std::int64_t i = 0; i < strip.size; i += kLanes<Scalar>) {
          const Lanes<Scalar> value = convolve(a, w, rows, i, strip.size - i);
          store(y + i, a.silu ? value * sigmoid(value) : value, strip.size - i);
        }
      }
    }
  }
}
MOLT_CLONES void forward_tasks_float(const Arguments& a, std::int64_t first, std::int64_t last) {
  forward_tasks<float>(a, first, last);
}
void forward_tasks_double(const Arguments& a, std::int64_t first, std::int64_t last) {
  forward_tasks<double>(a, first, last);
}

// Adds each token's gradient to the rows it saw, and to the sums over tokens.
template <class Scalar>
MOLT_INLINE void reverse_sequence(const Arguments& a, const Gradients& to, const Strip& strip, Work<Scalar>& w, std::int64_t s) {
  const std::int64_t begin = a.offsets[s], taps = a.width - 1;
  const std::int64_t in_windows = s * a.columns * taps;
  load_window(a, strip, a.initial_window ? as<Scalar>(a.initial_window) + in_windows : nullptr, w);
  for (std::int64_t t = begin; t < a.offsets[s + 1]; ++t) {
    const Scalar* rows[4];
    rows_seen(a, strip, w, begin, t, rows);
    const Scalar* gy = as<Scalar>(to.y) + t * a.channels + strip.channel;
    for (std::int64_t i = 0; i < strip.size; i += kLanes<Scalar>) {
      const std::int64_t left = strip.size - i;
      Lanes<Scalar> g = load(gy + i, left);
      if (a.silu) {
        const Lanes<Scalar> value = convolve(a, w, rows, i, left), slope = sigmoid(value);
        g *= slope * (1 + value * (1 - slope));
      }
      for (std::int64_t k = 0; k <= taps; ++k) {
        Scalar* sum = w.sums.data() + k * w.pitch + i;
        store(sum, load(sum) + g * load(rows[k] + i, left));
        const std::int64_t source = t - taps + k;
        const Lanes<Scalar> share = g * load(w.weight.data() + k * w.pitch + i);
        if (source >= begin) {
          Scalar* gx = as<Scalar>(to.x) + source * to.x_stride + strip.column + i;
          store(gx, load(gx, left) + share, left);
        } else if (to.initial_window) {
          Scalar* window = as<Scalar>(to.initial_window) + in_windows + (strip.column + i) * taps + source - begin + taps;
          for (std::int64_t j = 0; j < std::min<std::int64_t>(left, kLanes<Scalar>); ++j) window[j * taps] += share[j];
        }
      }
      Scalar* sum = w.sums.data() + a.width * w.pitch + i;
      store(sum, load(sum) + g);
    }
  }
}

// A task is one strip of one part of the sequences: it alone writes to its columns of x.
template <class Scalar>
MOLT_INLINE void backward_tasks(const Arguments& a, const Gradients& to, std::int64_t first, std::int64_t last) {
  Work<Scalar> w(a);
  for (std::int64_t task = first; task < last; ++task) {
    const std::int64_t part = task % to.parts;
    for (std::int64_t r = 0; r < a.repeat; ++r) {
      const Strip strip(a, task / to.parts, r);
      load_strip(a, strip, w);
      std::fill(w.sums.begin(), w.sums.end(), 0);
      for (std::int64_t s = a.sequences * part / to.parts; s < a.sequences * (part + 1) / to.parts; ++s) {
        reverse_sequence(a, to, strip, w, s);
      }
      for (std::int64_t i = 0; i < strip.size; ++i) {
        const std::int64_t channel = part * a.channels + strip.channel + i;
        for (std::int64_t k = 0; k < a.width; ++k) as<Scalar>(to.weight)[channel * a.width + k] = w.sums[k * w.pitch + i];
        if (to.bias) as<Scalar>(to.bias)[channel] = w.sums[a.width * w.pitch + i];
      }
    }
  }
}
MOLT_CLONES void backward_tasks_float(const Arguments& a, const Gradients& to, std::int64_t first, std::int64_t last) {
  backward_tasks<float>(a, to, first, last);
}
void backward_tasks_double(const Arguments& a, const Gradients& to, std::int64_t first, std::int64_t last) {
  backward_tasks<double>(a, to, first, last);
}

// Each row is convolved behind its window, then the window moves on by one.
template <class Scalar>
MOLT_INLINE void update_strips(const Update& update, std::int64_t first, std::int64_t last) {
  const Arguments& a = update.arguments;
  Work<Scalar> w(a);
  for (std::int64_t index = first; index < last; ++index) {
    for (std::int64_t r = 0; r < a.repeat; ++r) {
      const Strip strip(a, index, r);
      load_strip(a, strip, w);
      for (std::int64_t t = 0; t < a.tokens; ++t) {
        const std::int64_t slot = update.wide_slots ? as<std::int64_t>(update.slots)[t] : as<std::int32_t>(update.slots)[t];
        Scalar* windows = as<Scalar>(update.cache) + slot * a.columns * (a.width - 1);
        load_window<Scalar>(a, strip, windows, w);
        const Scalar* rows[4];
        rows_seen(a, strip, w, t, t, rows);
        Scalar* y = as<Scalar>(a.y) + t * a.channels + strip.channel;
        for (std::int64_t i = 0; i < strip.size; i += kLanes<Scalar>) {
          const Lanes<Scalar> value = convolve(a, w, rows, i, strip.size - i);
          store(y + i, a.silu ? value * sigmoid(value) : value, strip.size - i);
        }
        if (r + 1 < a.repeat) continue;
        for (std::int64_t i = 0; i < strip.size; ++i) {
          for (std::int64_t k = 0; k + 1 < a.width; ++k) windows[(strip.column + i) * (a.width - 1) + k] = rows[k + 1][i];
        }
      }
    }
  }
}
MOLT_CLONES void update_strips_float(const Update& update, std::int64_t first, std::int64_t last) {
  update_strips<float>(update, first, last);
}
void update_strips_double(const Update& update, std::int64_t first, std::int64_t last) {
  update_strips<double>(update, first, last);
}

// Tasks a thread takes at least, so that threads are not woken for less than some microseconds of work.
std::int64_t grain(const Arguments& a, std::int64_t tasks) {
  const std::int64_t task_size = std::max<std::int64_t>(1, a.tokens * a.channels / std::max<std::int64_t>(1, tasks));
  return std::max<std::int64_t>(1, 16384 / task_size);
}

}  // namespace conv_cpu

using namespace conv_cpu;

// Enough parts for 32 tasks, if there are as many sequences. Not by the number of threads, on which no sum may depend.
std::int64_t cpu_parts(const Arguments& a) {
  return std::clamp<std::int64_t>(32 / std::max<std::int64_t>(1, strip_count(a)), 1, std::max<std::int64_t>(1, a.sequences));
}

void cpu_forward(const Arguments& a) {
  const std::int64_t tasks = a.sequences * strip_count(a);
  const auto run = a.type == DataType::float64 ? forward_tasks_double : forward_tasks_float;
  at::parallel_for(0, tasks, grain(a, tasks), [&](std::int64_t first, std::int64_t last) { run(a, first, last); });
}

void cpu_backward(const Arguments& a, const Gradients& gradients) {
  const std::int64_t tasks = gradients.parts * strip_count(a);
  const auto run = a.type == DataType::float64 ? backward_tasks_double : backward_tasks_float;
  at::parallel_for(0, tasks, grain(a, tasks), [&](std::int64_t first, std::int64_t last) { run(a, gradients, first, last); });
}

void cpu_update(const Update& update) {
  const std::int64_t strips = strip_count(update.arguments);
  const auto run = update.arguments.type == DataType::float64 ? update_strips_double : update_strips_float;
  at::parallel_for(0, strips, grain(update.arguments, strips),
                   [&](std::int64_t first, std::int64_t last) { run(update, first, last); });
}

}  // namespace molt::ops::conv
