#include "ops/linear/linear.h"

#include <ATen/Functions.h>

#include "base/error.h"
#include "ops/autograd.h"
#include "ops/products.h"

namespace molt::ops {

namespace linear_operation {

at::Tensor weight_gradient(const at::Tensor& slope, const at::Tensor& input, const at::Tensor& weight) {
  if (!weight.is_leaf() || !weight.grad().defined()) return at::mm(slope.t(), input);
  add_product(weight.grad(), slope.t(), input);
  return {};
}

}  // namespace linear_operation

at::Tensor linear(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias) {
  MOLT_CHECK(input.dim() == 2 && weight.dim() == 2 && input.size(1) == weight.size(1), "linear: input ", input.sizes(),
             ", weight ", weight.sizes());
  return record(
      {input, weight, bias},
      [&](Saved& saved) -> Tensors {
        if (saved.recording) saved.tensors = {weight.requires_grad() ? input : at::Tensor(), weight};
        return {bias.defined() ? at::addmm(bias, input, weight.t()) : at::mm(input, weight.t())};
      },
      [](const Tensors& saved, const Tensors& slopes, const std::vector<bool>& needed) -> Tensors {
        const at::Tensor &slope = slopes[0], &weight = saved[1];
        if (!slope.defined()) return Tensors(3);
        return {needed[0] ? at::mm(slope, weight) : at::Tensor(),
                needed[1] ? linear_operation::weight_gradient(slope, saved[0], weight) : at::Tensor(),
                needed[2] ? slope.sum(0) : at::Tensor()};
      })[0];
}

}  // namespace molt::ops
