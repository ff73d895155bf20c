// Where an operation's tensors go to its CUDA kernels. Everything here compiles without CUDA, too, and then says no.
#pragma once
#include <ATen/core/Tensor.h>

#include "base/error.h"
#include "ops/data_type.h"
#ifdef MOLT_CUDA
#include <c10/cuda/CUDAStream.h>
#endif

namespace molt::ops {

// Whether CUDA kernels of float32 and bfloat16 may take x.
inline bool has_cuda_kernel([[maybe_unused]] const at::Tensor& x) {
#ifdef MOLT_CUDA
  return x.is_cuda() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
#else
  return false;
#endif
}

inline DataType data_type(const at::Tensor& x) {
  switch (x.scalar_type()) {
    case at::kFloat:
      return DataType::float32;
    case at::kDouble:
      return DataType::float64;
    case at::kBFloat16:
      return DataType::bfloat16;
    default:
      MOLT_CHECK(false, "no kernel for ", x.scalar_type());
  }
  return {};
}

#ifdef MOLT_CUDA
inline void* cuda_stream() {
  return c10::cuda::getCurrentCUDAStream().stream();
}
#endif

inline const void* data(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.const_data_ptr() : nullptr;
}
inline void* mutable_data(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.mutable_data_ptr() : nullptr;
}

}  // namespace molt::ops
