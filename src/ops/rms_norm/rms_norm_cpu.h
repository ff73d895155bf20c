// The CPU kernels of RMSNorm on contiguous rows, for float and double.
#pragma once
#include <cstdint>

namespace molt::ops {

template <class T>
struct RmsNormForward {
  const T *x, *residual, *weight;  // residual may be null
  T *sum, *normed, *inverse;       // sum: x + residual, null without residual; inverse (rows): 1 / root mean square, may be null
  std::int64_t rows, hidden;
  T epsilon;
};

template <class T>
struct RmsNormBackward {
  const T *sum, *weight, *inverse;          // what forward normalised and the inverses it kept
  const T *normed_gradient, *sum_gradient;  // each may be null: zero
  T* gradient;                              // of sum
  T* weight_gradients;                      // (slices, hidden), to be added up; null when not wanted
  std::int64_t rows, hidden, slices;        // slice i holds the share of rows i * rows / slices …
};

void rms_norm_forward_cpu(const RmsNormForward<float>& work);
void rms_norm_forward_cpu(const RmsNormForward<double>& work);
void rms_norm_backward_cpu(const RmsNormBackward<float>& work);
void rms_norm_backward_cpu(const RmsNormBackward<double>& work);

}  // namespace molt::ops
