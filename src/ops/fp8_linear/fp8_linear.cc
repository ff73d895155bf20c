#include "ops/fp8_linear/fp8_linear.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/GradMode.h>

#include "base/error.h"
#include "ops/cuda_dispatch.h"
#include "ops/fp8_linear/fp8_linear_cuda.h"
#ifdef MOLT_CUDA
#include <cuda_runtime_api.h>
#endif

namespace molt::ops {

namespace fp8 {

constexpr double kLargest = 448;  // of e4m3

at::Tensor widened(const Fp8Rows& rows) {
  return rows.values.to(at::kFloat) * rows.scales;
}

}  // namespace fp8

Fp8Rows fp8_rows(const at::Tensor& x) {
  MOLT_CHECK(x.dim() == 2 && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16), "fp8_rows: ", x.dtype(), " ",
             x.sizes());
  const c10::NoGradGuard no_grad;
#ifdef MOLT_CUDA
  if (has_cuda_kernel(x) && x.size(1) % 16 == 0) {
    const c10::DeviceGuard guard(x.device());
    const at::Tensor dense = x.contiguous();
    Fp8Rows rows{at::empty(x.sizes(), x.options().dtype(at::kFloat8_e4m3fn)),
                 at::empty({x.size(0), 1}, x.options().dtype(at::kFloat))};
    fp8_rows_cuda({.type = data_type(x),
                   .rows = x.size(0),
                   .columns = x.size(1),
                   .x = data(dense),
                   .values = mutable_data(rows.values),
                   .scales = rows.scales.mutable_data_ptr<float>()},
                  cuda_stream());
    return rows;
  }
#endif
  const at::Tensor wide = x.to(at::kFloat), largest = wide.abs().amax({1}, true);
  const at::Tensor scales = at::where(largest > 0, largest / fp8::kLargest, at::ones_like(largest));
  return {(wide * scales.reciprocal()).to(at::kFloat8_e4m3fn), scales};
}

bool fp8_device(at::Device device) {
  if (device.is_cpu()) return true;
#ifdef MOLT_CUDA
  int major = 0;
  if (device.is_cuda()) cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device.index());
  return major >= 9;
#else
  return false;
#endif
}

bool has_fp8_linear(const at::Tensor& weight) {
  return weight.dim() == 2 && weight.size(0) % 16 == 0 && weight.size(1) % 16 == 0 && fp8_device(weight.device());
}

at::Tensor fp8_linear(const at::Tensor& input, const Fp8Rows& weight, const at::Tensor& bias) {
  MOLT_CHECK(input.dim() == 2 && input.size(1) == weight.values.size(1) && has_fp8_linear(weight.values), "fp8_linear: input ",
             input.sizes(), ", weight ", weight.values.sizes());
  const c10::NoGradGuard no_grad;
  const auto dtype = input.scalar_type();
  const Fp8Rows rows = fp8_rows(input);
  if (input.is_cpu()) {
    const at::Tensor product = at::mm(fp8::widened(rows), fp8::widened(weight).t());
    return (bias.defined() ? product + bias : product).to(dtype);
  }
  // The kernel with a scale a row writes bfloat16 alone.
  const at::Tensor product =
      at::_scaled_mm(rows.values, weight.values.t(), rows.scales, weight.scales.t(), std::nullopt, std::nullopt, at::kBFloat16,
                     /*use_fast_accum=*/true)
          .to(dtype);
  return bias.defined() ? product + bias : product;
}

}  // namespace molt::ops
