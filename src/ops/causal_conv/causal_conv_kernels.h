// What the kernels of the causal convolution are given: sizes, strides and raw pointers, no LibTorch. causal_conv.h has the
// formula.
#pragma once
#include <cstdint>

#include "ops/data_type.h"

namespace molt::ops::conv {

struct Arguments {
  DataType type = DataType::float32;         // of x, windows, y and their gradients
  DataType weight_type = DataType::float32;  // and of the bias: float32 or float64, on a GPU also bfloat16
  std::int64_t tokens = 0, sequences = 0, columns = 0, channels = 0, width = 0, repeat = 1, group_size = 1;
  bool silu = true;
  const std::int32_t* offsets = nullptr;  // cu_seqlens, where the kernel runs
  const void* x = nullptr;
  std::int64_t x_stride = 0;                      // of rows, in elements
  const void *weight = nullptr, *bias = nullptr;  // bias may be null
  const void* initial_window = nullptr;           // (sequences, columns, width - 1), may be null
  void* y = nullptr;                              // (tokens, channels)
};

// Gradients of y and of the inputs, contiguous except where a stride is given. Sums over sequences are left to the caller: each
// of `parts` parts of the work writes its own share of them.
struct Gradients {
  const void* y = nullptr;
  void *x = nullptr, *initial_window = nullptr;  // the last may be null
  std::int64_t x_stride = 0;                     // of rows, in elements
  std::int64_t parts = 1;
  void *weight = nullptr, *bias = nullptr;  // (parts, channels, width), (parts, channels)
};

// One token of each of n sequences: tokens = n; sequences and offsets are unused.
struct Update {
  Arguments arguments;
  void* cache = nullptr;
  const void* slots = nullptr;
  bool wide_slots = false;                 // int64 instead of int32
  const std::int32_t* contexts = nullptr;  // on the GPU, may be null: 0 where a sequence begins
};

// On the CPU, float32 and float64, on LibTorch's threads.
std::int64_t cpu_parts(const Arguments& arguments);
void cpu_forward(const Arguments& arguments);
void cpu_backward(const Arguments& arguments, const Gradients& gradients);  // x and initial_window start as zeros
void cpu_update(const Update& update);

#ifdef MOLT_CUDA
// On the current GPU, float32 and bfloat16, in order on `stream` (a cudaStream_t).
std::int64_t cuda_parts(const Arguments& arguments);
void cuda_forward(const Arguments& arguments, void* stream);
// Whether backward takes this repeat: a power of two up to 32.
bool cuda_takes_repeat(const Arguments& arguments);
void cuda_backward(const Arguments& arguments, const Gradients& gradients, void* stream);
void cuda_update(const Update& update, void* stream);
#endif

}  // namespace molt::ops::conv
