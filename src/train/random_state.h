// LibTorch's own generators, of the CPU and of the device that trains. Seeds are explicit everywhere; these are kept for
// components that draw from them all the same.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "model/parameters.h"

namespace molt {

void seed_generators(at::Device device, std::uint64_t seed);
// "random.cpu", "random.cuda": uint8 tensors on the CPU.
std::vector<Parameter> generator_states(at::Device device);
// Puts back those of them that are among `tensors`.
void restore_generators(at::Device device, const std::vector<Parameter>& tensors);

}  // namespace molt
