#include "ops/rms_norm/rms_norm_cpu.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "ops/lanes.h"

namespace molt::ops {

namespace rms_norm_kernels {

template <class T>
MOLT_INLINE void forward_row(const RmsNormForward<T>& work, std::int64_t row) {
  constexpr int lanes = kLanes<T>;
  const std::int64_t hidden = work.hidden, offset = row * hidden;
  const T* x = work.x + offset;
  Lanes<T> squares = {};
  if (work.residual) {
    T* sum = work.sum + offset;
    for (std::int64_t i = 0; i < hidden; i += lanes) {
      const Lanes<T> value = load(x + i, hidden - i) + load(work.residual + offset + i, hidden - i);
      store(sum + i, value, hidden - i);
      squares += value * value;
    }
    x = sum;
  } else {
    for (std::int64_t i = 0; i < hidden; i += lanes) {
      const Lanes<T> value = load(x + i, hidden - i);
      squares += value * value;
    }
  }
  const T inverse = T(1) / std::sqrt(sum(squares) / T(hidden) + work.epsilon);
  if (work.inverse) work.inverse[row] = inverse;
  for (std::int64_t i = 0; i < hidden; i += lanes)
    store(work.normed + offset + i, load(x + i, hidden - i) * inverse * load(work.weight + i, hidden - i), hidden - i);
}

// With h = x / rms and g = gradient * weight: dx = (g - h mean(g h)) / rms; the weight's gradient is the sum over rows of
// gradient * h.
template <class T>
MOLT_INLINE void backward_row(const RmsNormBackward<T>& work, std::int64_t row, T* weight_gradient) {
  constexpr int lanes = kLanes<T>;
  const std::int64_t hidden = work.hidden, offset = row * hidden;
  const T *x = work.sum + offset, *dy = work.normed_gradient + offset;
  const T inverse = work.inverse[row];
  Lanes<T> products = {};
  for (std::int64_t i = 0; i < hidden; i += lanes) {
    const Lanes<T> product = load(dy + i, hidden - i) * load(x + i, hidden - i);
    products += product * load(work.weight + i, hidden - i);
    if (weight_gradient) store(weight_gradient + i, load(weight_gradient + i, hidden - i) + product * inverse, hidden - i);
  }
  const T along = sum(products) / T(hidden) * inverse * inverse * inverse;
  for (std::int64_t i = 0; i < hidden; i += lanes) {
    Lanes<T> value = load(dy + i, hidden - i) * load(work.weight + i, hidden - i) * inverse - load(x + i, hidden - i) * along;
    if (work.sum_gradient) value += load(work.sum_gradient + offset + i, hidden - i);
    store(work.gradient + offset + i, value, hidden - i);
  }
}

template <class T>
MOLT_INLINE void backward_slice(const RmsNormBackward<T>& work, std::int64_t slice) {
  T* weight_gradient = work.weight_gradients ? work.weight_gradients + slice * work.hidden : nullptr;
  if (weight_gradient) std::fill_n(weight_gradient, work.hidden, T(0));
  const std::int64_t end = work.rows * (slice + 1) / work.slices;
  for (std::int64_t row = work.rows * slice / work.slices; row < end; ++row) backward_row(work, row, weight_gradient);
}

MOLT_CLONES void forward_rows(const RmsNormForward<float>& work, std::int64_t begin, std::int64_t end) {
  for (std::int64_t row = begin; row < end; ++row) forward_row(work, row);
}
MOLT_CLONES void forward_rows(const RmsNormForward<double>& work, std::int64_t begin, std::int64_t end) {
  for (std::int64_t row = begin; row < end; ++row) forward_row(work, row);
}
MOLT_CLONES void backward_slices(const RmsNormBackward<float>& work, std::int64_t begin, std::int64_t end) {
  for (std::int64_t slice = begin; slice < end; ++slice) backward_slice(work, slice);
}
MOLT_CLONES void backward_slices(const RmsNormBackward<double>& work, std::int64_t begin, std::int64_t end) {
  for (std::int64_t slice = begin; slice < end; ++slice) backward_slice(work, slice);
}

template <class T>
void forward(const RmsNormForward<T>& work) {
  const std::int64_t grain = std::max<std::int64_t>(1, 16384 / work.hidden);
  at::parallel_for(0, work.rows, grain, [&](std::int64_t begin, std::int64_t end) { forward_rows(work, begin, end); });
}

template <class T>
void backward(const RmsNormBackward<T>& work) {
  at::parallel_for(0, work.slices, 1, [&](std::int64_t begin, std::int64_t end) { backward_slices(work, begin, end); });
}

}  // namespace rms_norm_kernels

void rms_norm_forward_cpu(const RmsNormForward<float>& work) {
  rms_norm_kernels::forward(work);
}
void rms_norm_forward_cpu(const RmsNormForward<double>& work) {
  rms_norm_kernels::forward(work);
}
void rms_norm_backward_cpu(const RmsNormBackward<float>& work) {
  rms_norm_kernels::backward(work);
}
void rms_norm_backward_cpu(const RmsNormBackward<double>& work) {
  rms_norm_kernels::backward(work);
}

}  // namespace molt::ops
