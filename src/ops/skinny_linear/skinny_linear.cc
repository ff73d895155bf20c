#include "ops/skinny_linear/skinny_linear.h"

#include <ATen/Functions.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>

#include "base/error.h"
#include "ops/new_tensor.h"
#include "ops/skinny_linear/skinny_linear_kernels.h"
#ifdef MOLT_CUDA
#include <c10/cuda/CUDAStream.h>
#endif

namespace molt::ops {

namespace skinny {

template <class T>
Products<T> products(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& residual,
                     bool swiglu, const at::Tensor& y) {
  const auto data = [](const at::Tensor& tensor) {
    return static_cast<const T*>(tensor.defined() ? tensor.const_data_ptr() : nullptr);
  };
  return {.rows = x.size(0),
          .in = x.size(1),
          .out = y.size(1),
          .swiglu = swiglu,
          .x = data(x),
          .weight = data(weight),
          .bias = data(bias),
          .residual = data(residual),
          .y = static_cast<T*>(y.mutable_data_ptr())};
}

at::Tensor multiply(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& residual,
                    bool swiglu) {
  const at::Tensor added = residual.defined() ? residual.contiguous() : residual;
  const at::Tensor y = new_tensor({x.size(0), swiglu ? weight.size(0) / 2 : weight.size(0)}, x);
#ifdef MOLT_CUDA
  if (x.is_cuda()) {
    const c10::DeviceGuard guard(x.device());
    cuda_multiply(products<void>(x, weight, bias, added, swiglu, y), c10::cuda::getCurrentCUDAStream().stream());
    return y;
  }
#endif
  cpu_multiply(products<float>(x, weight, bias, added, swiglu, y));
  return y;
}

// While gradients may be wanted later, products must not depend on who asks: recomputed ones equal the first ones.
bool has_cpu_kernel(const at::Tensor& x, const at::Tensor& weight) {
  constexpr std::int64_t fewest = 4, most = 32;  // beyond which LibTorch's is as fast
  return c10::InferenceMode::is_enabled() && x.scalar_type() == at::kFloat && weight.scalar_type() == at::kFloat &&
         x.size(0) >= fewest && x.size(0) <= most;
}

#ifdef MOLT_CUDA
bool aligned(const at::Tensor& tensor) {
  return reinterpret_cast<std::uintptr_t>(tensor.const_data_ptr()) % 16 == 0;
}

bool has_cuda_kernel(const at::Tensor& x, const at::Tensor& weight) {
  return x.is_cuda() && x.scalar_type() == at::kBFloat16 && weight.scalar_type() == at::kBFloat16 && x.size(0) <= kMostRows &&
         !c10::GradMode::is_enabled() && x.size(1) % 32 == 0 && weight.size(0) % 16 == 0 && aligned(x) && aligned(weight);
}
#endif

}  // namespace skinny

bool has_skinny_kernel(const at::Tensor& x, const at::Tensor& weight) {
  if (x.dim() != 2 || !x.is_contiguous() || !weight.is_contiguous()) return false;
  if (x.is_cpu()) return skinny::has_cpu_kernel(x, weight);
#ifdef MOLT_CUDA
  return skinny::has_cuda_kernel(x, weight);
#else
  return false;
#endif
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
  MOLT_CHECK(has_skinny_kernel(x, weight) && x.size(1) == weight.size(1) && weight.size(0) % 2 == 0, "skinny_swiglu: x ",
             x.sizes(), ", weight ", weight.sizes());
  return skinny::multiply(x, weight, {}, {}, true);
}

}  // namespace molt::ops
