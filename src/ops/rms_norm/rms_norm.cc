#include "ops/rms_norm/rms_norm.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>

#include <algorithm>

#include "base/error.h"
#include "ops/autograd.h"
#include "ops/rms_norm/rms_norm_cpu.h"

namespace molt::ops {

namespace rms_norm_operation {

bool has_kernel(const at::Tensor& x) {
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
Normed forward(const at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight, double epsilon, bool keep) {
  const std::int64_t hidden = x.size(-1), rows = x.numel() / hidden;
  Normed out{at::empty_like(x), residual.defined() ? at::empty_like(x) : x, keep ? at::empty({rows}, x.options()) : at::Tensor()};
  rms_norm_forward_cpu(RmsNormForward<T>{.x = read<T>(x),
                                         .residual = read<T>(residual),
                                         .weight = read<T>(weight),
                                         .sum = residual.defined() ? write<T>(out.sum) : nullptr,
                                         .normed = write<T>(out.normed),
                                         .inverse = write<T>(out.inverse),
                                         .rows = rows,
                                         .hidden = hidden,
                                         .epsilon = static_cast<T>(epsilon)});
  return out;
}

struct Gradients {
  at::Tensor input, weight;
};

// saved: sum, weight, inverse.
template <class T>
Gradients backward(const Tensors& saved, const at::Tensor& normed_gradient, const at::Tensor& sum_gradient, bool weight_needed) {
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

at::Tensor contiguous(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.contiguous() : tensor;
}

// Outputs {normed} or, with a residual, {normed, sum}.
Tensors apply(const at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight, double epsilon) {
  const bool is_float = x.scalar_type() == at::kFloat;
  return record(
      {x, residual, weight},
      [&](Saved& saved) -> Tensors {
        const at::Tensor rows = x.contiguous(), added = contiguous(residual), scale = weight.contiguous();
        Normed out = is_float ? forward<float>(rows, added, scale, epsilon, saved.recording)
                              : forward<double>(rows, added, scale, epsilon, saved.recording);
        saved.tensors = {out.sum, scale, out.inverse};
        return residual.defined() ? Tensors{out.normed, out.sum} : Tensors{out.normed};
      },
      [is_float, joins = residual.defined()](const Tensors& saved, const Tensors& gradients,
                                             const std::vector<bool>& needed) -> Tensors {
        const at::Tensor from_sum = joins ? contiguous(gradients[1]) : at::Tensor();
        if (!gradients[0].defined()) return {from_sum, from_sum, {}};
        const at::Tensor from_normed = gradients[0].contiguous();
        const Gradients result = is_float ? backward<float>(saved, from_normed, from_sum, needed[2])
                                          : backward<double>(saved, from_normed, from_sum, needed[2]);
        return {result.input, joins ? result.input : at::Tensor(), result.weight};
      });
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
  return rms_norm_operation::apply(x, {}, weight, epsilon)[0];
}

NormedSum add_rms_norm(const at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight, double epsilon) {
  rms_norm_operation::check(x, weight);
  MOLT_CHECK(x.sizes() == residual.sizes() && x.scalar_type() == residual.scalar_type(), "add_rms_norm: x ", x.sizes(), " ",
             x.scalar_type(), ", residual ", residual.sizes(), " ", residual.scalar_type());
  if (!rms_norm_operation::has_kernel(x)) {
    const at::Tensor sum = x + residual;
    return {rms_norm_operation::fallback(sum, weight, epsilon), sum};
  }
  Tensors out = rms_norm_operation::apply(x, residual, weight, epsilon);
  return {std::move(out[0]), std::move(out[1])};
}

at::Tensor rms_norm_composite(const at::Tensor& x, const at::Tensor& weight, double epsilon) {
  const at::Tensor wide = x.scalar_type() == at::kDouble ? x : x.to(at::kFloat);
  const at::Tensor normed = wide * at::rsqrt(wide.pow(2).mean(-1, true) + epsilon);
  return (normed * weight).to(x.scalar_type());
}

}  // namespace molt::ops
