// The CUDA kernels of AdamW on flat float32 buffers: sizes and raw pointers, no LibTorch. adamw.h has the formula.
#pragma once
#include <cstdint>

namespace molt::ops {

#ifdef MOLT_CUDA

struct AdamWCuda {
  float *weights = nullptr, *moment1 = nullptr, *moment2 = nullptr;  // weights: the masters where there are any
  const float* gradients = nullptr;
  void* narrow = nullptr;          // bfloat16 weights to set from the masters, may be null
  const double* ranges = nullptr;  // (range_count, 3): where a range ends, its weight decay and learning rate factor
  std::int64_t count = 0, range_count = 0;
  const float *scale = nullptr, *broken = nullptr;  // scalars: what gradients are divided by; not 0: nothing changes
  float learning_rate = 0, beta1 = 0, beta2 = 0, epsilon = 0;
  float rest1 = 1, rest2 = 1;              // 1 - beta
  float correction1 = 1, correction2 = 1;  // 1 - beta^step
};

// What adamw.h's clip_gradients computes, from shares of the sum of squares.
struct ClipCuda {
  const float* shares = nullptr;
  std::int64_t count = 0;
  double divisor = 1, clip_norm = 0;
  const float* limit = nullptr;  // may be null
  float *norm = nullptr, *scale = nullptr, *broken = nullptr;
};

// On the current GPU, in order on `stream` (a cudaStream_t).
std::int64_t cuda_square_shares();  // of a tensor's sum of squares
void cuda_sum_squares(const float* values, std::int64_t count, float* shares, void* stream);
void cuda_clip(const ClipCuda& work, void* stream);
void cuda_adamw(const AdamWCuda& work, void* stream);

#endif

}  // namespace molt::ops
