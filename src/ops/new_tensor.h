// Results of operations.
#pragma once
#include <ATen/EmptyTensor.h>
#include <ATen/Functions.h>
#include <ATen/core/Tensor.h>

namespace molt::ops {

// at::empty with the dtype and device of `like`, contiguous. On the CPU without the dispatcher, which takes longer than what a
// small model's operation does with its memory.
inline at::Tensor new_tensor(at::IntArrayRef sizes, const at::Tensor& like) {
  if (like.is_cpu()) return at::Tensor(at::detail::empty_cpu(sizes, like.scalar_type()));
  return at::empty(sizes, like.options());
}

}  // namespace molt::ops
