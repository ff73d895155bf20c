// What the kernels of the selective scan are given: sizes, strides and raw pointers, no LibTorch. selective_scan.h has the
// formula.
#pragma once
#include <cstdint>

#include "ops/data_type.h"

namespace molt::ops::scan {

// Tokens between two states kept for the backward pass. On the CPU what is computed again for so many stays in the first cache.
constexpr std::int64_t kChunk = 32, kCpuChunk = 16;
constexpr int kTaps = 4;  // of a convolution in front that the scan does itself

struct Arguments {
  // Of x, dt, B, C, z, y and their gradients. The rest is float32 or float64 where it has no type of its own.
  DataType type = DataType::float32;
  std::int64_t tokens = 0, sequences = 0, d_inner = 0, d_xb = 0, x_columns = 0, state = 0;
  const std::int32_t* offsets = nullptr;  // cu_seqlens, where the kernel runs

  const void *x = nullptr, *dt = nullptr, *B = nullptr, *C = nullptr, *z = nullptr;    // z may be null
  std::int64_t x_stride = 0, dt_stride = 0, B_stride = 0, C_stride = 0, z_stride = 0;  // of rows, in elements
  const void *dt_bias = nullptr, *A_log = nullptr, *D = nullptr,
             *initial_state = nullptr;        // contiguous; all but A_log may be null
  DataType dt_bias_type = DataType::float32;  // on a GPU bfloat16 as well

  // Where forward on a GPU convolves x on its way (causal_conv.h, with SiLU), for a state of kCudaConvolvesFor: x then has d_xb
  // columns, and what it comes to may be kept.
  const void *taps = nullptr, *taps_bias = nullptr;  // (d_inner, kTaps), (d_inner); contiguous, the latter may be null
  DataType taps_type = DataType::float32;            // of both: float32 or bfloat16
  void* convolved = nullptr;                         // (tokens, d_inner), contiguous, may be null

  void* y = nullptr;            // contiguous
  void* final_state = nullptr;  // may be null
  // Kept for the backward pass, may be null: room for keep_count() states, each in the kernel's own layout.
  void* kept = nullptr;
  void* scratch = nullptr;                  // on the GPU: as many floats as cuda_forward_scratch or cuda_backward_room says
  const std::int64_t* positions = nullptr;  // ascending, where the kernel runs
  std::int64_t position_count = 0;
  void* states = nullptr;  // (position_count, d_inner, state)
};

// Chunk k of sequence s keeps its first state at place offsets[s] / chunk + s + k: no two share one.
inline std::int64_t keep_count(std::int64_t tokens, std::int64_t sequences, std::int64_t chunk) {
  return tokens / chunk + sequences;
}

// Gradients of y and the final state (null: zero), and where those of the inputs go. In the inputs' shapes, and contiguous,
// except where noted. Sums over sequences are left to the caller: each of `parts` parts of the work writes its own share of them.
struct Gradients {
  const void *y = nullptr, *final_state = nullptr;
  void *x = nullptr, *dt = nullptr, *B = nullptr, *C = nullptr, *z = nullptr,
       *initial_state = nullptr;                          // the last two may be null
  std::int64_t B_stride = 0, C_stride = 0, z_stride = 0;  // of rows, in elements
  // Where columns of x or B are summed in several shares: (shares, tokens, columns) float32, left to the caller, too.
  std::int64_t x_shares = 1, B_shares = 1, parts = 1;
  void *dt_bias = nullptr, *D = nullptr,
       *A_log = nullptr;  // (parts, d_inner), (parts, d_inner), (parts, d_inner, state); set, not added to
};

// One token of each of n sequences.
struct Update {
  Arguments arguments;  // tokens = n; sequences, offsets, states unused
  void* cache = nullptr;
  const void* slots = nullptr;
  bool wide_slots = false;                 // int64 instead of int32
  const std::int32_t* contexts = nullptr;  // on the GPU, may be null: 0 where a sequence begins
};

// What Gradients must have room for, and the scratch floats of Arguments.
struct BackwardRoom {
  std::int64_t x_shares = 1, B_shares = 1, parts = 1, scratch = 0;
};

// On the CPU, float32 and float64, on LibTorch's threads.
std::int64_t cpu_state_size(const Arguments& arguments);  // elements of one kept state
std::int64_t cpu_parts(const Arguments& arguments);
void cpu_forward(const Arguments& arguments);
void cpu_backward(const Arguments& arguments, const Gradients& gradients);
void cpu_update(const Update& update);

// On the current GPU, float32 and bfloat16, in order on `stream` (a cudaStream_t). States of up to kCudaLargestState.
constexpr std::int64_t kCudaLargestState = 128, kCudaConvolvesFor = 16;
std::int64_t cuda_forward_scratch(const Arguments& arguments);
void cuda_forward(const Arguments& arguments, void* stream);
BackwardRoom cuda_backward_room(const Arguments& arguments);
void cuda_backward(const Arguments& arguments, const Gradients& gradients, void* stream);
void cuda_update(const Update& update, void* stream);

}  // namespace molt::ops::scan
