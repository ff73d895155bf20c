// One token of the causal convolution on a GPU.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "ops/causal_conv/causal_conv_kernels.h"
#include "ops/cuda_common.cuh"

namespace molt::ops::conv {

namespace conv_update_cuda {

constexpr int kThreads = 128, kLargestWidth = 4;

using cuda::as;

__device__ float sigmoid(float x) {
  return 1.0f / (1.0f + __expf(-x));
}

// A thread is one column of one row: it alone reads and moves its window.
template <class T>
__global__ void update_kernel(const Update update) {
  const Arguments& a = update.arguments;
  const std::int64_t blocks = (a.columns + kThreads - 1) / kThreads;
  const std::int64_t column = blockIdx.x % blocks * kThreads + threadIdx.x, t = blockIdx.x / blocks;
  if (column >= a.columns) return;
  const std::int64_t slot = update.wide_slots ? as<std::int64_t>(update.slots)[t] : as<std::int32_t>(update.slots)[t];
  if (slot < 0) return;
  const bool begins = update.contexts && update.contexts[t] == 0;
  const int taps = static_cast<int>(a.width) - 1;
  T* window = as<T>(update.cache) + (slot * a.columns + column) * taps;
  T rows[kLargestWidth];
  for (int k = 0; k < taps; ++k) rows[k] = begins ? static_cast<T>(0.0f) : window[k];
  rows[taps] = as<T>(a.x)[t * a.x_stride + column];
  for (std::int64_t r = 0; r < a.repeat; ++r) {
    const std::int64_t channel =
        a.repeat == 1 ? column : (column / a.group_size * a.repeat + r) * a.group_size + column % a.group_size;
    float value = cuda::parameter(a.bias, channel, a.weight_type);
    for (int k = 0; k <= taps; ++k) {
      value += cuda::parameter(a.weight, channel * a.width + k, a.weight_type) * static_cast<float>(rows[k]);
    }
    as<T>(a.y)[t * a.channels + channel] = static_cast<T>(a.silu ? value * sigmoid(value) : value);
  }
  for (int k = 0; k < taps; ++k) window[k] = rows[k + 1];
}

}  // namespace conv_update_cuda

void cuda_update(const Update& update, void* stream) {
  using namespace conv_update_cuda;
  const Arguments& a = update.arguments;
  const auto blocks = static_cast<unsigned>(a.tokens * ((a.columns + kThreads - 1) / kThreads));
  if (blocks == 0) return;
  if (a.type == DataType::bfloat16) {
    update_kernel<__nv_bfloat16><<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(update);
  } else {
    update_kernel<float><<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(update);
  }
  if (const cudaError_t error = cudaGetLastError())
    throw std::runtime_error(std::string("causal_conv_update: ") + cudaGetErrorString(error));
}

}  // namespace molt::ops::conv
