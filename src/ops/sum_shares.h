// Sums of what blocks of a CUDA kernel computed by themselves, always in the same order.
#pragma once
#include <cstdint>
#include <span>

#include "ops/data_type.h"

namespace molt::ops {

// One sum: to[c] = sum of shares[p, c] over p < parts. shares (parts, columns) float32, `to` (columns) of `type`.
struct Shares {
  const float* shares = nullptr;
  std::int64_t parts = 0, columns = 0;
  void* to = nullptr;
  DataType type = DataType::float32;
};

constexpr std::size_t kMostSums = 6;

#ifdef MOLT_CUDA
// Up to kMostSums sums by one kernel, in order on `stream` (a cudaStream_t).
void cuda_sum_shares(std::span<const Shares> sums, void* stream);
#endif

}  // namespace molt::ops
