// What the kernel of one-token updates of Mamba layers is given: sizes, strides and raw pointers, no LibTorch. mamba_update.h has
// the contract.
#pragma once
#include <cstdint>

namespace molt::ops::mamba {

#ifdef MOLT_CUDA
struct Arguments {
  bool bfloat16 = false;  // else float32: of x, B, C, z, dt, dt_low, y, windows and the parameters without a type of their own
  std::int64_t tokens = 0, d_inner = 0, d_xb = 0, state = 0, width = 0, rank = 0;
  bool conv_repeated = true;  // the convolution has d_inner channels; else d_xb
  bool silu = true;

  const void *x = nullptr, *B = nullptr, *C = nullptr, *z = nullptr;  // z may be null
  const void* dt = nullptr;                                           // (tokens, d_inner); null: dt_low times dt_weight
  const void* dt_low = nullptr;                                       // (tokens, rank)
  std::int64_t x_stride = 0, B_stride = 0, C_stride = 0, z_stride = 0, dt_stride = 0, low_stride = 0;  // of rows, in elements
  const void *conv_weight = nullptr, *conv_bias = nullptr;                                             // the bias may be null
  const void *dt_weight = nullptr, *dt_bias = nullptr;  // (d_inner, rank), (d_inner); the bias may be null
  const float *A_log = nullptr, *D = nullptr;           // D may be null

  void* windows = nullptr;  // (slots, d_xb, width - 1)
  float* states = nullptr;  // (slots, d_inner, state)
  const std::int64_t* slots = nullptr;
  const std::int32_t* contexts = nullptr;
  void* y = nullptr;  // (tokens, d_inner)
};

constexpr std::int64_t kLargestRank = 64;  // of dt_low: beyond, dt_weight would be read again and again

// States of 8, 16, 32 and 64, convolutions of up to 4, ranks that are multiples of 8.
inline bool has_cuda_kernel(std::int64_t state, std::int64_t width) {
  return (state == 8 || state == 16 || state == 32 || state == 64) && width >= 2 && width <= 4;
}
inline bool multiplies_rank(std::int64_t rank) {
  return rank % 8 == 0 && rank <= kLargestRank;
}
// On the current GPU, in order on `stream` (a cudaStream_t).
void cuda_update(const Arguments& arguments, void* stream);
#endif

}  // namespace molt::ops::mamba
