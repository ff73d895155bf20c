#include "ops/device.h"

#include <ATen/Context.h>

#include <filesystem>

#include "base/error.h"
#include "base/log.h"

namespace molt {
namespace devices {

#ifdef MOLT_CUDA
constexpr const char* missing = "no NVIDIA GPU was found (nvidia-smi lists those that the driver knows)";
#else
constexpr const char* missing = "this build of molt computes on CPUs alone; make cuda builds it for GPUs";

void warn_of_unused_gpu() {
  static const bool once = [] {
    if (std::filesystem::exists("/dev/nvidiactl")) log_warning(concat("computing on the CPU: ", missing));
    return true;
  }();
  static_cast<void>(once);
}
#endif

}  // namespace devices

at::Device device_of(const std::string& word, const std::string& place) {
  const bool has_gpu = at::hasCUDA();
  require(word != "cuda" || has_gpu, place, ": found cuda, but ", devices::missing);
#ifndef MOLT_CUDA
  if (word == "auto") devices::warn_of_unused_gpu();
#endif
  return word != "cpu" && has_gpu ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU);
}

at::ScalarType dtype_of(const std::string& word, at::Device device) {
  if (word == "auto") return device.is_cpu() ? at::kFloat : at::kBFloat16;
  return word == "bfloat16" ? at::kBFloat16 : at::kFloat;
}

}  // namespace molt
