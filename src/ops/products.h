// Matrix products into memory that exists, of another type than the factors where sums need more bits.
#pragma once
#include <ATen/core/Tensor.h>

namespace molt::ops {

// out = a b. `out` has the factors' type or a wider one: on a GPU the product is then never rounded to the narrow one.
void multiply(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b);
// sum += a b, likewise.
void add_product(const at::Tensor& sum, const at::Tensor& a, const at::Tensor& b);

}  // namespace molt::ops
