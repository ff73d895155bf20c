// New weights: random numbers that depend on the seed and the shape alone, never on the machine's threads or device.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace molt {

// fp32 on the CPU, drawn independently.
at::Tensor random_normal(at::IntArrayRef sizes, double standard_deviation, std::uint64_t seed);
at::Tensor random_uniform(at::IntArrayRef sizes, double low, double high, std::uint64_t seed);

// Replaces a tensor that is still on the meta device by make(sizes).
template <class Make>
void fill_if_meta(at::Tensor& tensor, const Make& make) {
  if (tensor.defined() && tensor.is_meta()) tensor = make(tensor.sizes());
}

}  // namespace molt
