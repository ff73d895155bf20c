// What the kernels for products of few rows are given: sizes and raw pointers, no LibTorch. skinny_linear.h has the contract.
#pragma once
#include <cstdint>

namespace molt::ops::skinny {

// float32 on the CPU, bf16 on a GPU.
template <class T>
struct Products {
  std::int64_t rows = 0, in = 0, out = 0;
  bool swiglu = false;                           // weight has 2 * out rows: gate, then up
  const T *x = nullptr, *weight = nullptr;       // (rows, in), (out, in), contiguous
  const T *bias = nullptr, *residual = nullptr;  // (out), (rows, out); may be null
  T* y = nullptr;                                // (rows, out)
};

void cpu_multiply(const Products<float>& work);

#ifdef MOLT_CUDA
constexpr std::int64_t kMostRows = 8;

using Arguments = Products<void>;
// On the current GPU, in order on `stream` (a cudaStream_t).
void cuda_multiply(const Arguments& arguments, void* stream);
#endif

}  // namespace molt::ops::skinny
