// Which kernels of the selective scan a GPU takes: the tuned ones for a state of 16, the plain ones for others. Both keep
// the same states for the backward pass.
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "ops/selective_scan/selective_scan_cuda.cuh"

namespace molt::ops::scan {

namespace scan_dispatch {

bool tuned(const Arguments& a) {
  return a.state == scan_cuda::kState;
}

bool tuned_backward(const Arguments& a) {
  return tuned(a) && scan_cuda::backward_fits(a.type);
}

void check_launch() {
  if (const cudaError_t error = cudaGetLastError())
    throw std::runtime_error(std::string("selective_scan: ") + cudaGetErrorString(error));
}

}  // namespace scan_dispatch

std::int64_t cuda_forward_scratch(const Arguments& a) {
  return scan_dispatch::tuned(a) ? scan_cuda::forward_scratch(a) : 0;
}

void cuda_forward(const Arguments& a, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  scan_dispatch::tuned(a) ? scan_cuda::forward(a, on) : scan_cuda::plain_forward(a, on);
  scan_dispatch::check_launch();
}

BackwardRoom cuda_backward_room(const Arguments& a) {
  return scan_dispatch::tuned_backward(a) ? scan_cuda::backward_room(a) : scan_cuda::plain_backward_room(a);
}

void cuda_backward(const Arguments& a, const Gradients& gradients, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  scan_dispatch::tuned_backward(a) ? scan_cuda::backward(a, gradients, on) : scan_cuda::plain_backward(a, gradients, on);
  scan_dispatch::check_launch();
}

}  // namespace molt::ops::scan
