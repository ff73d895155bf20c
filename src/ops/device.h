// Where, and in which type, a configuration or a command asks to compute.
#pragma once
#include <ATen/core/Tensor.h>

#include <string>

namespace molt {

// "cpu", "cuda", or "auto": the first GPU if this build can use one, else the CPU, with a warning where there is a GPU that it
// cannot use. UserError for a GPU that is not there; `place` ("train.yaml: device", "--device") starts it.
at::Device device_of(const std::string& word, const std::string& place);
// "float32", "bfloat16", or "auto": float32 on the CPU, bfloat16 on a GPU.
at::ScalarType dtype_of(const std::string& word, at::Device device);

}  // namespace molt
