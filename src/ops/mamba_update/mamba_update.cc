#include "ops/mamba_update/mamba_update.h"

#include <ATen/Functions.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/GradMode.h>

#include "base/error.h"
#include "ops/mamba_update/mamba_update_kernels.h"
#ifdef MOLT_CUDA
#include <c10/cuda/CUDAStream.h>
#endif

namespace molt::ops {

namespace mamba {

// The two operations one after the other.
at::Tensor in_steps(const ConvInput& conv, const ScanInput& scan, const at::Tensor& dt_low, const at::Tensor& dt_weight,
                    const MambaCache& cache) {
  ScanInput in = scan;
  in.dt = at::mm(dt_low, dt_weight.t());
  in.x = causal_conv_update(conv, cache.windows, cache.slots, cache.context_lens);
  return selective_scan_update(in, cache.states, cache.slots, cache.context_lens);
}

#ifdef MOLT_CUDA
bool has_kernel(const ConvInput& conv, const ScanInput& scan) {
  const auto dtype = conv.x.scalar_type();
  return conv.x.is_cuda() && (dtype == at::kFloat || dtype == at::kBFloat16) &&
         has_cuda_kernel(scan.A_log.size(1), conv.weight.size(1));
}

// Rows of one dtype whose elements lie beside each other and begin at multiples of four elements, as vectors are loaded.
at::Tensor rows(const at::Tensor& tensor, at::ScalarType dtype) {
  if (!tensor.defined()) return tensor;
  const at::Tensor result = tensor.to(dtype);
  const bool whole = result.stride(1) == 1 && result.stride(0) % 4 == 0 && result.storage_offset() % 4 == 0;
  return whole ? result : result.contiguous();
}
at::Tensor dense(const at::Tensor& tensor, at::ScalarType dtype) {
  return tensor.defined() ? tensor.to(dtype).contiguous() : tensor;
}
const void* data(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.const_data_ptr() : nullptr;
}

at::Tensor on_cuda(const ConvInput& conv, const ScanInput& scan, const at::Tensor& dt_low, const at::Tensor& dt_weight,
                   const MambaCache& cache) {
  const c10::DeviceGuard guard(conv.x.device());
  const auto dtype = conv.x.scalar_type();
  const bool low_rank = multiplies_rank(dt_weight.size(1));
  const at::Tensor x = rows(conv.x, dtype), B = rows(scan.B, dtype), C = rows(scan.C, dtype), z = rows(scan.z, dtype);
  const at::Tensor low = low_rank ? rows(dt_low, dtype).contiguous() : at::Tensor();
  const at::Tensor dt = low_rank ? at::Tensor() : at::mm(dt_low, dt_weight.t());
  const at::Tensor conv_weight = dense(conv.weight, dtype), conv_bias = dense(conv.bias, dtype), weight = dense(dt_weight, dtype),
                   bias = dense(scan.dt_bias, dtype), A_log = dense(scan.A_log, at::kFloat), D = dense(scan.D, at::kFloat);
  const at::Tensor y = at::empty({x.size(0), C.size(1)}, x.options());
  const auto stride = [](const at::Tensor& tensor) { return tensor.defined() ? tensor.stride(0) : 0; };
  const auto floats = [](const at::Tensor& tensor) { return tensor.defined() ? tensor.const_data_ptr<float>() : nullptr; };
  cuda_update({.bfloat16 = dtype == at::kBFloat16,
               .tokens = x.size(0),
               .d_inner = C.size(1),
               .d_xb = B.size(1),
               .state = A_log.size(1),
               .width = conv_weight.size(1),
               .rank = weight.size(1),
               .conv_repeated = conv_weight.size(0) == C.size(1),
               .silu = conv.silu,
               .x = data(x),
               .B = data(B),
               .C = data(C),
               .z = data(z),
               .dt = data(dt),
               .dt_low = data(low),
               .x_stride = stride(x),
               .B_stride = stride(B),
               .C_stride = stride(C),
               .z_stride = stride(z),
               .dt_stride = stride(dt),
               .low_stride = stride(low),
               .conv_weight = data(conv_weight),
               .conv_bias = data(conv_bias),
               .dt_weight = data(weight),
               .dt_bias = data(bias),
               .A_log = floats(A_log),
               .D = floats(D),
               .windows = cache.windows.mutable_data_ptr(),
               .states = cache.states.mutable_data_ptr<float>(),
               .slots = cache.slots.const_data_ptr<std::int64_t>(),
               .contexts = cache.context_lens.const_data_ptr<std::int32_t>(),
               .y = y.mutable_data_ptr()},
              c10::cuda::getCurrentCUDAStream().stream());
  return y;
}
#endif

void check(const ConvInput& conv, const ScanInput& scan, const at::Tensor& dt_low, const at::Tensor& dt_weight,
           const MambaCache& cache) {
  const std::int64_t n = conv.x.size(0), d_inner = scan.C.size(1), d_xb = scan.B.size(1), state = scan.A_log.size(1);
  MOLT_CHECK(state > 0 && d_xb % state == 0 && d_inner % d_xb == 0 && scan.A_log.size(0) == d_inner, "mamba_update: d_inner ",
             d_inner, ", d_xb ", d_xb, ", A_log ", scan.A_log.sizes());
  MOLT_CHECK(conv.x.size(1) == d_xb && conv.weight.size(0) == d_xb * conv.repeat &&
                 (conv.repeat == 1 || (conv.repeat == d_inner / d_xb && conv.group_size == state)) && scan.B.size(0) == n &&
                 scan.C.size(0) == n && (!scan.z.defined() || scan.z.sizes() == scan.C.sizes()),
             "mamba_update: x ", conv.x.sizes(), ", convolution ", conv.weight.sizes(), ", B ", scan.B.sizes(), ", C ",
             scan.C.sizes());
  MOLT_CHECK(dt_low.dim() == 2 && dt_low.size(0) == n && dt_weight.dim() == 2 && dt_weight.size(0) == d_inner &&
                 dt_weight.size(1) == dt_low.size(1),
             "mamba_update: dt_low ", dt_low.sizes(), ", dt_weight ", dt_weight.sizes());
  MOLT_CHECK(cache.windows.is_contiguous() && cache.states.is_contiguous() && cache.windows.dim() == 3 &&
                 cache.states.dim() == 3 && cache.windows.size(1) == d_xb && cache.windows.size(2) + 1 == conv.weight.size(1) &&
                 cache.windows.scalar_type() == conv.x.scalar_type() && cache.states.size(1) == d_inner &&
                 cache.states.size(2) == state && cache.slots.sizes() == at::IntArrayRef({n}) &&
                 cache.slots.scalar_type() == at::kLong && cache.context_lens.sizes() == at::IntArrayRef({n}) &&
                 cache.context_lens.scalar_type() == at::kInt,
             "mamba_update: windows ", cache.windows.sizes(), ", states ", cache.states.sizes(), ", slots ", cache.slots.sizes(),
             ", context_lens ", cache.context_lens.sizes());
}

}  // namespace mamba

at::Tensor mamba_update(const ConvInput& conv, const ScanInput& scan, const at::Tensor& dt_low, const at::Tensor& dt_weight,
                        const MambaCache& cache) {
  c10::AutoGradMode no_recording(false);
  mamba::check(conv, scan, dt_low, dt_weight, cache);
#ifdef MOLT_CUDA
  if (mamba::has_kernel(conv, scan)) return mamba::on_cuda(conv, scan, dt_low, dt_weight, cache);
#endif
  return mamba::in_steps(conv, scan, dt_low, dt_weight, cache);
}

}  // namespace molt::ops
