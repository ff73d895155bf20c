// The causal convolution on a GPU, plainly: a thread follows one channel along a run of tokens, so that a warp reads and writes
// rows of 32 neighbours. Sums over tokens are left as one share a run, which the caller adds up in order.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "ops/causal_conv/causal_conv_kernels.h"

namespace molt::ops::conv {

namespace conv_cuda {

constexpr int kThreads = 128, kForwardRun = 32, kBackwardRun = 128, kLargestWidth = 4;

template <class T>
__device__ const T* as(const void* pointer) {
  return static_cast<const T*>(pointer);
}
template <class T>
__device__ T* as(void* pointer) {
  return static_cast<T*>(pointer);
}

__device__ float sigmoid(float x) {
  return 1.0f / (1.0f + __expf(-x));
}

// The sequence whose token t is: the last one that begins at or before it.
__device__ std::int64_t sequence_of(const Arguments& a, std::int64_t t) {
  std::int64_t low = 0, high = a.sequences;
  while (high - low > 1) {
    const std::int64_t middle = (low + high) / 2;
    (a.offsets[middle] <= t ? low : high) = middle;
  }
  return low;
}

// One channel: its taps, and the column of x it reads.
struct Channel {
  __device__ Channel(const Arguments& a, std::int64_t channel)
      : column(a.repeat == 1 ? channel : channel / (a.group_size * a.repeat) * a.group_size + channel % a.group_size),
        bias(a.bias ? as<float>(a.bias)[channel] : 0.0f) {
    for (int k = 0; k < kLargestWidth; ++k) taps[k] = k < a.width ? as<float>(a.weight)[channel * a.width + k] : 0.0f;
  }
  std::int64_t column;
  float bias, taps[kLargestWidth];
};

// x at tap k of token t, of sequence s that begins at `begin`.
template <class T>
__device__ float seen(const Arguments& a, const Channel& c, std::int64_t s, std::int64_t begin, std::int64_t t, int k) {
  const std::int64_t source = t - (a.width - 1) + k;
  if (source >= begin) return static_cast<float>(as<T>(a.x)[source * a.x_stride + c.column]);
  if (!a.initial_window) return 0.0f;
  return static_cast<float>(as<T>(a.initial_window)[(s * a.columns + c.column) * (a.width - 1) + source - begin + a.width - 1]);
}

template <class T>
__device__ float convolve(const Arguments& a, const Channel& c, std::int64_t s, std::int64_t begin, std::int64_t t) {
  float value = c.bias;
  for (int k = 0; k < a.width; ++k) value += c.taps[k] * seen<T>(a, c, s, begin, t, k);
  return value;
}

template <class T>
__global__ void forward_kernel(const Arguments a) {
  const std::int64_t blocks = (a.channels + kThreads - 1) / kThreads;
  const std::int64_t channel = blockIdx.x % blocks * kThreads + threadIdx.x, first = blockIdx.x / blocks * kForwardRun;
  if (channel >= a.channels) return;
  const Channel c(a, channel);
  std::int64_t s = sequence_of(a, first);
  for (std::int64_t t = first; t < min(first + kForwardRun, a.tokens); ++t) {
    while (a.offsets[s + 1] <= t) ++s;
    const float value = convolve<T>(a, c, s, a.offsets[s], t);
    as<T>(a.y)[t * a.channels + channel] = static_cast<T>(a.silu ? value * sigmoid(value) : value);
  }
}

// The gradient of the convolution's value at token t before SiLU.
template <class T>
__device__ float gradient(const Arguments& a, const Gradients& to, const Channel& c, std::int64_t channel, std::int64_t s,
                          std::int64_t begin, std::int64_t t) {
  const float g = static_cast<float>(as<T>(to.y)[t * a.channels + channel]);
  if (!a.silu) return g;
  const float value = convolve<T>(a, c, s, begin, t), slope = sigmoid(value);
  return g * slope * (1.0f + value * (1.0f - slope));
}

template <class T>
__global__ void backward_kernel(const Arguments a, const Gradients to) {
  const std::int64_t blocks = (a.channels + kThreads - 1) / kThreads;
  const std::int64_t channel = blockIdx.x % blocks * kThreads + threadIdx.x, run = blockIdx.x / blocks,
                     first = run * kBackwardRun;
  if (channel >= a.channels) return;
  const Channel c(a, channel);
  const int taps = static_cast<int>(a.width) - 1;
  float ahead[kLargestWidth];  // gradients at tokens t … t + width - 1 of the sequence, zero behind its end
  float gweight[kLargestWidth] = {}, gbias = 0.0f;
  std::int64_t s = sequence_of(a, first);
  for (std::int64_t t = first; t < min(first + kBackwardRun, a.tokens); ++t) {
    const std::int64_t before = s;
    while (a.offsets[s + 1] <= t) ++s;
    const std::int64_t begin = a.offsets[s], end = a.offsets[s + 1];
    if (t == first || s != before) {
      for (int j = 0; j < taps; ++j) ahead[j] = t + j < end ? gradient<T>(a, to, c, channel, s, begin, t + j) : 0.0f;
    }
    ahead[taps] = t + taps < end ? gradient<T>(a, to, c, channel, s, begin, t + taps) : 0.0f;
    float gx = 0.0f;
    for (int j = 0; j <= taps; ++j) gx += c.taps[taps - j] * ahead[j];
    as<float>(to.x)[t * a.channels + channel] = gx;
    for (int k = 0; k <= taps; ++k) gweight[k] += ahead[0] * seen<T>(a, c, s, begin, t, k);
    gbias += ahead[0];
    for (int j = 0; j < taps; ++j) ahead[j] = ahead[j + 1];
  }
  for (int k = 0; k <= taps; ++k) as<float>(to.weight)[(run * a.channels + channel) * a.width + k] = gweight[k];
  if (to.bias) as<float>(to.bias)[run * a.channels + channel] = gbias;
}

// Row j of a sequence's initial window is tap k of its token j - k.
template <class T>
__global__ void window_kernel(const Arguments a, const Gradients to) {
  const std::int64_t blocks = (a.channels + kThreads - 1) / kThreads;
  const std::int64_t channel = blockIdx.x % blocks * kThreads + threadIdx.x, s = blockIdx.x / blocks;
  if (channel >= a.channels) return;
  const Channel c(a, channel);
  const std::int64_t begin = a.offsets[s], end = a.offsets[s + 1];
  for (int j = 0; j + 1 < a.width; ++j) {
    float sum = 0.0f;
    for (int k = 0; k <= j; ++k) {
      if (begin + j - k < end) sum += c.taps[k] * gradient<T>(a, to, c, channel, s, begin, begin + j - k);
    }
    as<float>(to.initial_window)[(s * a.channels + channel) * (a.width - 1) + j] = sum;
  }
}

// Calls launch.template operator()<T>(blocks) with enough blocks for `rows` times `width` threads.
template <class Launch>
void launch_blocks(DataType type, std::int64_t rows, std::int64_t width, const Launch& launch) {
  const auto blocks = static_cast<unsigned>(rows * ((width + kThreads - 1) / kThreads));
  if (blocks == 0) return;
  if (type == DataType::bfloat16) {
    launch.template operator()<__nv_bfloat16>(blocks);
  } else {
    launch.template operator()<float>(blocks);
  }
  if (const cudaError_t error = cudaGetLastError())
    throw std::runtime_error(std::string("causal_conv: ") + cudaGetErrorString(error));
}

}  // namespace conv_cuda

std::int64_t cuda_parts(const Arguments& a) {
  return (a.tokens + conv_cuda::kBackwardRun - 1) / conv_cuda::kBackwardRun;
}

void cuda_forward(const Arguments& a, void* stream) {
  const std::int64_t runs = (a.tokens + conv_cuda::kForwardRun - 1) / conv_cuda::kForwardRun;
  conv_cuda::launch_blocks(a.type, runs, a.channels, [&]<class T>(unsigned blocks) {
    conv_cuda::forward_kernel<T><<<blocks, conv_cuda::kThreads, 0, static_cast<cudaStream_t>(stream)>>>(a);
  });
}

void cuda_backward(const Arguments& a, const Gradients& gradients, void* stream) {
  conv_cuda::launch_blocks(a.type, gradients.parts, a.channels, [&]<class T>(unsigned blocks) {
    conv_cuda::backward_kernel<T><<<blocks, conv_cuda::kThreads, 0, static_cast<cudaStream_t>(stream)>>>(a, gradients);
  });
  if (!gradients.initial_window) return;
  conv_cuda::launch_blocks(a.type, a.sequences, a.channels, [&]<class T>(unsigned blocks) {
    conv_cuda::window_kernel<T><<<blocks, conv_cuda::kThreads, 0, static_cast<cudaStream_t>(stream)>>>(a, gradients);
  });
}

}  // namespace molt::ops::conv
