#include "ops/rms_norm/rms_norm.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "ops/autograd.h"
#include "ops/cuda_dispatch.h"
#include "ops/new_tensor.h"
#include "ops/rms_norm/rms_norm_cpu.h"
#include "ops/rms_norm/rms_norm_cuda.h"
#include "ops/sum_shares.h"

namespace molt::ops {

namespace rms_norm_operation {

bool has_kernel(const at::Tensor& x) {
#ifdef MOLT_CUDA
  if (has_cuda_kernel(x)) return x.size(-1) <= kCudaLargestNorm;
#endif
  return x.is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kDouble);
}

template <class T>
const T* read(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.const_data_ptr<T>() : nullptr;
}
template <class T>
T* write(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.mutable_data_ptr<T>() : nullptr;
}

struct Normed {
  at::Tensor normed, sum, inverse;  // sum is x without residual
};

template <class T>
void forward_cpu(const at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight, double epsilon, const Normed& out) {
  const std::int64_t hidden = x.size(-1), rows = x.numel() / hidden;
  rms_norm_forward_cpu(RmsNormForward<T>{.x = read<T>(x),
                                         .residual = read<T>(residual),
                                         .weight = read<T>(weight),
                                         .sum = residual.defined() ? write<T>(out.sum) : nullptr,
                                         .normed = write<T>(out.normed),
                                         .inverse = write<T>(out.inverse),
                                         .rows = rows,
                                         .hidden = hidden,
                                         .epsilon = static_cast<T>(epsilon)});
}

#ifdef MOLT_CUDA
void forward_cuda(const at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight, double epsilon, const Normed& out) {
  const std::int64_t hidden = x.size(-1), rows = x.numel() / hidden;
  cuda_rms_norm_forward({.type = data_type(x),
                         .x = data(x),
                         .residual = data(residual),
                         .weight = data(weight),
                         .sum = residual.defined() ? mutable_data(out.sum) : nullptr,
                         .normed = mutable_data(out.normed),
                         .inverse = write<float>(out.inverse),
                         .rows = rows,
                         .hidden = hidden,
                         .epsilon = static_cast<float>(epsilon)},
                        cuda_stream());
}
#endif

Normed forward(const at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight, double epsilon, bool keep) {
  const c10::DeviceGuard guard(x.device());
  const at::ScalarType precise = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const std::int64_t rows = x.numel() / x.size(-1);
  Normed out{new_tensor(x.sizes(), x), residual.defined() ? new_tensor(x.sizes(), x) : x,
             keep ? at::empty({rows}, x.options().dtype(precise)) : at::Tensor()};
#ifdef MOLT_CUDA
  if (x.is_cuda()) {
    forward_cuda(x, residual, weight, epsilon, out);
    return out;
  }
#endif
  (precise == at::kFloat ? forward_cpu<float> : forward_cpu<double>)(x, residual, weight, epsilon, out);
  return out;
}

struct Gradients {
  at::Tensor input, weight;
};

// saved: sum, weight, inverse.
template <class T>
Gradients backward_cpu(const Tensors& saved, const at::Tensor& normed_gradient, const at::Tensor& sum_gradient,
                       bool weight_needed) {
  const at::Tensor &sum = saved[0], &weight = saved[1];
  const std::int64_t hidden = sum.size(-1), rows = sum.numel() / hidden;
  const std::int64_t slices = std::clamp<std::int64_t>(rows * hidden / 16384, 1, at::get_num_threads());
  const at::Tensor weight_gradients = weight_needed ? at::empty({slices, hidden}, sum.options()) : at::Tensor();
  const at::Tensor gradient = at::empty_like(sum);
  rms_norm_backward_cpu(RmsNormBackward<T>{.sum = read<T>(sum),
                                           .weight = read<T>(weight),
                                           .inverse = read<T>(saved[2]),
                                           .normed_gradient = read<T>(normed_gradient),
                                           .sum_gradient = read<T>(sum_gradient),
                                           .gradient = write<T>(gradient),
                                           .weight_gradients = write<T>(weight_gradients),
                                           .rows = rows,
                                           .hidden = hidden,
                                           .slices = slices});
  return {gradient, weight_needed ? weight_gradients.sum(0) : at::Tensor()};
}

#ifdef MOLT_CUDA
Gradients backward_cuda(const Tensors& saved, const at::Tensor& normed_gradient, const at::Tensor& sum_gradient,
                        bool weight_needed) {
  const at::Tensor &sum = saved[0], &weight = saved[1];
  const std::int64_t hidden = sum.size(-1), rows = sum.numel() / hidden, parts = cuda_rms_norm_parts(rows, hidden);
  Gradients out{at::empty_like(sum), weight_needed ? at::empty_like(weight) : at::Tensor()};
  const at::Tensor shares = weight_needed ? at::empty({parts, hidden}, sum.options().dtype(at::kFloat)) : at::Tensor();
  cuda_rms_norm_backward({.type = data_type(sum),
                          .sum = data(sum),
                          .weight = data(weight),
                          .inverse = read<float>(saved[2]),
                          .normed_gradient = data(normed_gradient),
                          .sum_gradient = data(sum_gradient),
                          .gradient = mutable_data(out.input),
                          .weight_shares = write<float>(shares),
                          .rows = rows,
                          .hidden = hidden},
                         cuda_stream());
  if (weight_needed) {
    const Shares weight_sums[] = {{read<float>(shares), parts, hidden, mutable_data(out.weight), data_type(weight)}};
    cuda_sum_shares(weight_sums, cuda_stream());
  }
  return out;
}
#endif

Gradients backward(const Tensors& saved, const at::Tensor& normed_gradient, const at::Tensor& sum_gradient, bool weight_needed) {
  const c10::DeviceGuard guard(saved[0].device());
#ifdef MOLT_CUDA
  if (saved[0].is_cuda()) return backward_cuda(saved, normed_gradient, sum_gradient, weight_needed);
#endif
  const bool is_float = saved[0].scalar_type() == at::kFloat;
  return (is_float ? backward_cpu<float> : backward_cpu<double>)(saved, normed_gradient, sum_gradient, weight_needed);
}

at::Tensor contiguous(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.contiguous() : tensor;
}

// `gives_sum`: the sum is a result, too, and may have a gradient.
Normed apply(const at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight, double epsilon, bool gives_sum) {
  if (!c10::GradMode::is_enabled()) return forward(x.contiguous(), contiguous(residual), weight.contiguous(), epsilon, false);
  Tensors out = record(
      {x, residual, weight},
      [&](Saved& saved) -> Tensors {
        const at::Tensor rows = x.contiguous(), added = contiguous(residual), scale = weight.contiguous();
        Normed out = forward(rows, added, scale, epsilon, saved.recording);
        saved.tensors = {out.sum, scale, out.inverse};
        return gives_sum ? Tensors{out.normed, out.sum} : Tensors{out.normed};
      },
      [gives_sum](const Tensors& saved, const Tensors& gradients, const std::vector<bool>& needed) -> Tensors {
        const at::Tensor from_sum = gives_sum ? contiguous(gradients[1]) : at::Tensor();
        if (!gradients[0].defined()) return {from_sum, from_sum, {}};
        const at::Tensor from_normed = gradients[0].contiguous();
        const Gradients result = backward(saved, from_normed, from_sum, needed[2]);
        return {result.input, result.input, result.weight};
      });
  return {std::move(out.front()), std::move(out.back()), {}};
}

void check(const at::Tensor& x, const at::Tensor& weight) {
  MOLT_CHECK(x.dim() >= 1 && weight.dim() == 1 && weight.size(0) == x.size(-1) && weight.size(0) > 0, "rms_norm: x ", x.sizes(),
             ", weight ", weight.sizes());
  MOLT_CHECK(x.scalar_type() == weight.scalar_type(), "rms_norm: x ", x.scalar_type(), ", weight ", weight.scalar_type());
}

// LibTorch's fused operation where it has one.
at::Tensor fallback(const at::Tensor& x, const at::Tensor& weight, double epsilon) {
  if (x.is_cuda()) return std::get<0>(at::_fused_rms_norm(x, weight.sizes(), weight, epsilon));
  return rms_norm_composite(x, weight, epsilon);
}

}  // namespace rms_norm_operation

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double epsilon) {
  rms_norm_operation::check(x, weight);
  if (!rms_norm_operation::has_kernel(x)) return rms_norm_operation::fallback(x, weight, epsilon);
  return rms_norm_operation::apply(x, {}, weight, epsilon, false).normed;
}

NormedSum branch_rms_norm(const at::Tensor& x, const at::Tensor& weight, double epsilon) {
  rms_norm_operation::check(x, weight);
  if (!rms_norm_operation::has_kernel(x)) return {rms_norm_operation::fallback(x, weight, epsilon), x};
  rms_norm_operation::Normed out = rms_norm_operation::apply(x, {}, weight, epsilon, true);
  return {std::move(out.normed), std::move(out.sum)};
}

NormedSum add_rms_norm(const at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight, double epsilon) {
  rms_norm_operation::check(x, weight);
  MOLT_CHECK(x.sizes() == residual.sizes() && x.scalar_type() == residual.scalar_type(), "add_rms_norm: x ", x.sizes(), " ",
             x.scalar_type(), ", residual ", residual.sizes(), " ", residual.scalar_type());
  if (!rms_norm_operation::has_kernel(x)) {
    const at::Tensor sum = x + residual;
    return {rms_norm_operation::fallback(sum, weight, epsilon), sum};
  }
  rms_norm_operation::Normed out = rms_norm_operation::apply(x, residual, weight, epsilon, true);
  return {std::move(out.normed), std::move(out.sum)};
}

at::Tensor rms_norm_composite(const at::Tensor& x, const at::Tensor& weight, double epsilon) {
  const at::Tensor wide = x.scalar_type() == at::kDouble ? x : x.to(at::kFloat);
  const at::Tensor normed = wide * at::rsqrt(wide.pow(2).mean(-1, true) + epsilon);
  return (normed * weight).to(x.scalar_type());
}

}  // namespace molt::ops
