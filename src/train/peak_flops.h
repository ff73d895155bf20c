// What a device could do at best, to say what share of it training reaches.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <string>

namespace molt {

// FLOP/s of dense matrix products in bfloat16 as NVIDIA's data sheets have them, by the device's name ("NVIDIA H100 80GB HBM3");
// none for other devices and types.
std::optional<double> published_peak_flops(const std::string& device_name, at::ScalarType dtype);

// Of the device: published on a GPU; on the CPU measured, the best of some products of 1024 x 1024 matrices on as many threads as
// there are now, by processor time, in about a tenth of a second. None where nothing is known.
std::optional<double> peak_flops(at::Device device, at::ScalarType dtype);

}  // namespace molt
