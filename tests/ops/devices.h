// Every test of an operation runs on each device of the machine: for (const at::Device device : test_devices()) { … }
#pragma once
#include <ATen/Context.h>
#include <ATen/core/Tensor.h>

#include <vector>

namespace molt {

inline std::vector<at::Device> test_devices() {
  std::vector<at::Device> devices = {at::kCPU};
  if (at::hasCUDA()) devices.emplace_back(at::kCUDA, 0);
  return devices;
}

}  // namespace molt
