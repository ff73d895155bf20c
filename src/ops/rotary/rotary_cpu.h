// The turn of one token's heads on the CPU, for kernels that do more with them than store them.
#pragma once
#include <cstdint>
#include <cstring>

#include "ops/lanes.h"

namespace molt::ops {

// Turns the heads of one token: pairs (first half, second half) by (cos, sin), or back with direction -1; copies what lies
// beyond.
template <class T>
MOLT_INLINE void turn_heads(const T* from, std::int64_t head_stride, T* to, std::int64_t heads, std::int64_t head_size,
                            const float* cos, const float* sin, std::int64_t half, T direction) {
  for (std::int64_t head = 0; head < heads; ++head, from += head_stride, to += head_size) {
#pragma omp simd
    for (std::int64_t i = 0; i < half; ++i) {
      const T a = from[i], b = from[i + half], c = T(cos[i]), s = direction * T(sin[i]);
      to[i] = a * c - b * s;
      to[i + half] = b * c + a * s;
    }
    if (2 * half < head_size) std::memcpy(to + 2 * half, from + 2 * half, (head_size - 2 * half) * sizeof(T));
  }
}

}  // namespace molt::ops
