#include "ops/products.h"

#include <ATen/Functions.h>

namespace molt::ops {

void multiply(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b) {
  at::Tensor result = out;
  if (out.scalar_type() == a.scalar_type()) {
    at::mm_out(result, a, b);
  } else if (out.is_cuda() && out.scalar_type() == at::kFloat) {
    at::mm_out(result, a, b, at::kFloat);
  } else {
    result.copy_(at::mm(a, b));
  }
}

void add_product(const at::Tensor& sum, const at::Tensor& a, const at::Tensor& b) {
  at::Tensor result = sum;
  if (sum.scalar_type() == a.scalar_type()) {
    result.addmm_(a, b);
  } else if (sum.is_cuda() && sum.scalar_type() == at::kFloat) {
    at::addmm_out(result, sum, a, b, at::kFloat);
  } else {
    result.add_(at::mm(a, b));
  }
}

}  // namespace molt::ops
