// What the kernels of rotary embedding are given: sizes, strides and raw pointers, no LibTorch. rotary.h has the formula.
#pragma once
#include <cstdint>

#include "ops/data_type.h"

namespace molt::ops {

// Heads of each token to turn, or to copy. Strides are in elements; the values of a head are neighbours.
struct RotaryPart {
  const void* from = nullptr;                          // null: zeros
  std::int64_t from_stride = 0, from_head_stride = 0;  // of tokens and of heads
  void* to = nullptr;
  std::int64_t to_stride = 0;  // of tokens; heads lie side by side
  std::int64_t heads = 0;
  bool turns = false;
};

struct RotaryWork {
  DataType type = DataType::float32;
  RotaryPart parts[3];
  const float *cos = nullptr, *sin = nullptr;  // (tokens, half); null where nothing turns
  std::int64_t tokens = 0, head_size = 0, half = 0;
  bool back = false;  // by the transposed rotation
};

struct RotaryTableWork {
  const void* positions = nullptr;  // (tokens)
  bool wide_positions = false;      // int64 instead of int32
  const float* frequencies = nullptr;
  float factor = 1;
  float *cos = nullptr, *sin = nullptr;  // (tokens, half)
  std::int64_t tokens = 0, half = 0;
};

// On the CPU, float32 and float64, on LibTorch's threads.
void cpu_rotary(const RotaryWork& work);
void cpu_rotary_table(const RotaryTableWork& work);

#ifdef MOLT_CUDA
// On the current GPU, float32 and bfloat16, in order on `stream` (a cudaStream_t).
void cuda_rotary(const RotaryWork& work, void* stream);
void cuda_rotary_table(const RotaryTableWork& work, void* stream);
#endif

}  // namespace molt::ops
