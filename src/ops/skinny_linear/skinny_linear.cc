#include "ops/skinny_linear/skinny_linear.h"

#include <ATen/Functions.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/GradMode.h>

#include "base/error.h"
#include "ops/skinny_linear/skinny_linear_kernels.h"
#ifdef MOLT_CUDA
#include <c10/cuda/CUDAStream.h>
#endif

namespace molt::ops {

#ifdef MOLT_CUDA

namespace skinny {

bool aligned(const at::Tensor& tensor) {
  return reinterpret_cast<std::uintptr_t>(tensor.const_data_ptr()) % 16 == 0;
}

at::Tensor multiply(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& residual,
                    bool swiglu) {
  const c10::DeviceGuard guard(x.device());
  const auto data = [](const at::Tensor& tensor) { return tensor.defined() ? tensor.const_data_ptr() : nullptr; };
  const at::Tensor added = residual.defined() ? residual.contiguous() : residual;
  const std::int64_t out = swiglu ? weight.size(0) / 2 : weight.size(0);
  const at::Tensor y = at::empty({x.size(0), out}, x.options());
  cuda_multiply({.rows = x.size(0),
                 .in = x.size(1),
                 .out = out,
                 .swiglu = swiglu,
                 .x = data(x),
                 .weight = data(weight),
                 .bias = data(bias),
                 .residual = data(added),
                 .y = y.mutable_data_ptr()},
                c10::cuda::getCurrentCUDAStream().stream());
  return y;
}

}  // namespace skinny

bool has_skinny_kernel(const at::Tensor& x, const at::Tensor& weight) {
  return x.is_cuda() && x.scalar_type() == at::kBFloat16 && weight.scalar_type() == at::kBFloat16 && x.dim() == 2 &&
         x.size(0) <= skinny::kMostRows && !c10::GradMode::is_enabled() && x.is_contiguous() && weight.is_contiguous() &&
         x.size(1) % 32 == 0 && weight.size(0) % 16 == 0 && skinny::aligned(x) && skinny::aligned(weight);
}

at::Tensor skinny_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& residual) {
  MOLT_CHECK(has_skinny_kernel(x, weight) && x.size(1) == weight.size(1) &&
                 (!residual.defined() || (residual.sizes() == at::IntArrayRef({x.size(0), weight.size(0)}) &&
                                          residual.scalar_type() == x.scalar_type())) &&
                 (!bias.defined() || (bias.numel() == weight.size(0) && bias.scalar_type() == x.scalar_type())),
             "skinny_linear: x ", x.sizes(), ", weight ", weight.sizes());
  return skinny::multiply(x, weight, bias, residual, false);
}

at::Tensor skinny_swiglu(const at::Tensor& x, const at::Tensor& weight) {
  MOLT_CHECK(has_skinny_kernel(x, weight) && x.size(1) == weight.size(1), "skinny_swiglu: x ", x.sizes(), ", weight ",
             weight.sizes());
  return skinny::multiply(x, weight, {}, {}, true);
}

#else

bool has_skinny_kernel(const at::Tensor&, const at::Tensor&) {
  return false;
}

at::Tensor skinny_linear(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&) {
  MOLT_CHECK(false, "a build without CUDA");
}

at::Tensor skinny_swiglu(const at::Tensor&, const at::Tensor&) {
  MOLT_CHECK(false, "a build without CUDA");
}

#endif

}  // namespace molt::ops
