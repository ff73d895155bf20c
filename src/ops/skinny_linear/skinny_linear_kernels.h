// What the kernel for products of few rows is given: sizes and raw pointers, no LibTorch. skinny_linear.h has the contract.
#pragma once
#include <cstdint>

namespace molt::ops::skinny {

#ifdef MOLT_CUDA
constexpr std::int64_t kMostRows = 8;

// All bf16.
struct Arguments {
  std::int64_t rows = 0, in = 0, out = 0;
  bool swiglu = false;                              // weight has 2 * out rows: gate, then up
  const void *x = nullptr, *weight = nullptr;       // (rows, in), (out, in), contiguous
  const void *bias = nullptr, *residual = nullptr;  // (out), (rows, out); may be null
  void* y = nullptr;                                // (rows, out)
};
// On the current GPU, in order on `stream` (a cudaStream_t).
void cuda_multiply(const Arguments& arguments, void* stream);
#endif

}  // namespace molt::ops::skinny
