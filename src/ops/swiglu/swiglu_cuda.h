// The CUDA kernels of SwiGLU on contiguous rows of float32 or bfloat16: sizes and raw pointers, no LibTorch.
#pragma once
#include <cstdint>

#include "ops/data_type.h"

namespace molt::ops {

#ifdef MOLT_CUDA
// On the current GPU, in order on `stream` (a cudaStream_t). gate_up (rows, 2 * intermediate); out (rows, intermediate) or, with
// the gradient (rows, intermediate) of that, the gradient of gate_up.
struct SwigluCuda {
  DataType type = DataType::float32;
  const void *gate_up = nullptr, *gradient = nullptr;
  void* out = nullptr;
  std::int64_t rows = 0, intermediate = 0;
};
void cuda_swiglu_forward(const SwigluCuda& work, void* stream);
void cuda_swiglu_backward(const SwigluCuda& work, void* stream);
#endif

}  // namespace molt::ops
