// Rotary embedding on the CPU: a thread has a run of tokens.
#include "ops/rotary/rotary_cpu.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "ops/rotary/rotary_kernels.h"

namespace molt::ops {

namespace rotary_cpu {

template <class T>
MOLT_INLINE void turn_tokens(const RotaryWork& work, std::int64_t begin, std::int64_t end) {
  for (std::int64_t token = begin; token < end; ++token) {
    for (const RotaryPart& part : work.parts) {
      T* to = static_cast<T*>(part.to) + token * part.to_stride;
      if (!part.from) {
        std::fill_n(to, part.heads * work.head_size, T(0));
        continue;
      }
      const T* from = static_cast<const T*>(part.from) + token * part.from_stride;
      turn_heads(from, part.from_head_stride, to, part.heads, work.head_size, work.cos + token * work.half,
                 work.sin + token * work.half, part.turns ? work.half : 0, work.back ? T(-1) : T(1));
    }
  }
}

MOLT_CLONES void tokens_float(const RotaryWork& work, std::int64_t begin, std::int64_t end) {
  turn_tokens<float>(work, begin, end);
}
MOLT_CLONES void tokens_double(const RotaryWork& work, std::int64_t begin, std::int64_t end) {
  turn_tokens<double>(work, begin, end);
}

}  // namespace rotary_cpu

void cpu_rotary(const RotaryWork& work) {
  std::int64_t heads = 0;
  for (const RotaryPart& part : work.parts) heads += part.heads;
  const std::int64_t grain = std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(heads * work.head_size, 1));
  const auto run = work.type == DataType::float64 ? rotary_cpu::tokens_double : rotary_cpu::tokens_float;
  at::parallel_for(0, work.tokens, grain, [&](std::int64_t begin, std::int64_t end) { run(work, begin, end); });
}

void cpu_rotary_table(const RotaryTableWork& work) {
  const std::int64_t half = work.half;
  at::parallel_for(0, work.tokens, std::max<std::int64_t>(1, 2048 / std::max<std::int64_t>(half, 1)), [&](auto begin, auto end) {
    for (std::int64_t i = begin * half; i < end * half; ++i) {
      const std::int64_t token = i / half;
      const auto position = static_cast<float>(work.wide_positions ? static_cast<const std::int64_t*>(work.positions)[token]
                                                                   : static_cast<const std::int32_t*>(work.positions)[token]);
      const float angle = position * work.frequencies[i % half];
      work.cos[i] = std::cos(angle) * work.factor;
      work.sin[i] = std::sin(angle) * work.factor;
    }
  });
}

}  // namespace molt::ops
