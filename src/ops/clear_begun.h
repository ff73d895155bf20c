// Recurrent caches of sequences that only begin.
#pragma once
#include <ATen/core/Tensor.h>

namespace molt::ops {

// Zeros to cache[slots[i]] (slots, …) wherever context_lens[i] is 0. Waits for a GPU.
void clear_begun(const at::Tensor& cache, const at::Tensor& slots, const at::Tensor& context_lens);

}  // namespace molt::ops
