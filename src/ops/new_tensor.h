// Results of operations. What LibTorch's dispatcher takes for a call is longer than what a small model's operation does with its
// memory: on the CPU these go without it.
#pragma once
#include <ATen/EmptyTensor.h>
#include <ATen/Functions.h>
#include <ATen/core/Tensor.h>

namespace molt::ops {

// at::empty with the dtype and device of `like`, contiguous.
inline at::Tensor new_tensor(at::IntArrayRef sizes, const at::Tensor& like) {
  if (like.is_cpu()) return at::Tensor(at::detail::empty_cpu(sizes, like.scalar_type()));
  return at::empty(sizes, like.options());
}

// x.flatten(1) for a result that nobody else holds.
inline at::Tensor flat_rows(at::Tensor x) {
  if (!x.is_cpu() || !x.is_contiguous() || x.use_count() > 1 || !x.is_inference()) return x.flatten(1);
  x.unsafeGetTensorImpl()->set_sizes_contiguous({x.size(0), c10::multiply_integers(x.sizes().slice(1))});
  return x;
}

}  // namespace molt::ops
