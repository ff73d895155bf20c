// What the kernel of fp8_rows is given: sizes and raw pointers, no LibTorch.
#pragma once
#include <cstdint>

#include "ops/data_type.h"

namespace molt::ops {

struct Fp8RowsCuda {
  DataType type = DataType::float32;
  std::int64_t rows = 0, columns = 0;  // columns: a multiple of 16
  const void* x = nullptr;             // contiguous, as are the others
  void* values = nullptr;              // e4m3
  float* scales = nullptr;
};

void fp8_rows_cuda(const Fp8RowsCuda& work, void* stream);

}  // namespace molt::ops
