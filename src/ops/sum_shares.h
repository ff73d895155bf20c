// Sums of what blocks of a CUDA kernel computed by themselves, always in the same order.
#pragma once
#include <cstdint>

#include "ops/data_type.h"

namespace molt::ops {

#ifdef MOLT_CUDA
// to[c] = sum of shares[p, c] over p < parts; shares (parts, columns) float32, `to` (columns) of `type`. In order on `stream` (a
// cudaStream_t).
void cuda_sum_shares(const float* shares, std::int64_t parts, std::int64_t columns, void* to, DataType type, void* stream);
#endif

}  // namespace molt::ops
