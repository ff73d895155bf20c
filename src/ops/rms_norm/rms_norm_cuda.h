// The CUDA kernels of RMSNorm on contiguous rows of float32 or bfloat16: sizes and raw pointers, no LibTorch.
#pragma once
#include <cstdint>

#include "ops/data_type.h"

namespace molt::ops {

#ifdef MOLT_CUDA

constexpr std::int64_t kCudaLargestNorm = 16384;  // values of a row

struct RmsNormCudaForward {
  DataType type = DataType::float32;
  const void *x = nullptr, *residual = nullptr, *weight = nullptr;  // residual may be null
  void *sum = nullptr, *normed = nullptr;                           // sum: x + residual, null without residual
  float* inverse = nullptr;                                         // (rows) 1 / root mean square, may be null
  std::int64_t rows = 0, hidden = 0;
  float epsilon = 0;
};

struct RmsNormCudaBackward {
  DataType type = DataType::float32;
  const void *sum = nullptr, *weight = nullptr;  // what forward normalised
  const float* inverse = nullptr;
  const void *normed_gradient = nullptr, *sum_gradient = nullptr;  // the latter may be null: zero
  void* gradient = nullptr;                                        // of sum
  float* weight_shares = nullptr;  // (cuda_rms_norm_parts, hidden), to be added up; null when not wanted
  std::int64_t rows = 0, hidden = 0;
};

// On the current GPU, in order on `stream` (a cudaStream_t).
void cuda_rms_norm_forward(const RmsNormCudaForward& work, void* stream);
std::int64_t cuda_rms_norm_parts(std::int64_t rows, std::int64_t hidden);
void cuda_rms_norm_backward(const RmsNormCudaBackward& work, void* stream);

#endif

}  // namespace molt::ops
