#include "train/peak_flops.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>
#ifdef MOLT_CUDA
#include <cuda_runtime_api.h>
#endif

#include <algorithm>
#include <ctime>
#include <utility>

namespace molt {

namespace peak {

// Later rows hold for names that earlier ones would match, too.
constexpr std::pair<const char*, double> published[] = {
    {"A100", 312e12}, {"H100", 989e12}, {"H200", 989e12}, {"H100 PCIe", 756e12}, {"H100 NVL", 835e12}, {"H200 NVL", 835e12},
};

// By processor time, which other work on the machine does not lengthen.
double measured(at::ScalarType dtype) {
  constexpr std::int64_t size = 1024;
  const c10::NoGradGuard no_grad;
  const at::Tensor a = at::ones({size, size}, dtype), b = at::ones({size, size}, dtype);
  at::Tensor product = at::mm(a, b);  // packs, starts threads
  double best = 0;
  for (int i = 0; i < 5; ++i) {
    const std::clock_t begin = std::clock();
    at::mm_out(product, a, b);
    const auto ticks = static_cast<double>(std::max<std::clock_t>(std::clock() - begin, 1));
    best = std::max(best, 2.0 * size * size * size * at::get_num_threads() * CLOCKS_PER_SEC / ticks);
  }
  return best;
}

}  // namespace peak

std::optional<double> published_peak_flops(const std::string& device_name, at::ScalarType dtype) {
  std::optional<double> found;
  if (dtype != at::kBFloat16) return found;
  for (const auto& [name, flops] : peak::published) {
    if (device_name.find(name) != std::string::npos) found = flops;
  }
  return found;
}

std::optional<double> peak_flops(at::Device device, at::ScalarType dtype) {
  if (device.is_cpu()) return peak::measured(dtype);
#ifdef MOLT_CUDA
  cudaDeviceProp properties;
  if (cudaGetDeviceProperties(&properties, device.has_index() ? device.index() : 0) == cudaSuccess) {
    return published_peak_flops(properties.name, dtype);
  }
#endif
  return std::nullopt;
}

}  // namespace molt
