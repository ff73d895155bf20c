// One token of each of several sequences on a GPU: a block is one group of channels of one token.
#include <stdexcept>
#include <string>

#include "ops/selective_scan/selective_scan_cuda_plain.cuh"

namespace molt::ops::scan {

namespace scan_plain {

template <class T, int kStates>
__global__ void __launch_bounds__(kMostThreads<kStates>) update_kernel(const Update update) {
  const Arguments& a = update.arguments;
  const std::int64_t groups = a.d_inner / a.state, t = blockIdx.x / groups;
  const Place<kStates> p(a, blockIdx.x % groups);
  const std::int64_t slot = update.wide_slots ? as<std::int64_t>(update.slots)[t] : as<std::int32_t>(update.slots)[t];
  if (slot < 0) return;
  float A[kStates], h[kStates];
  load_decays(A, p, a);
  load_states(h, p, update.contexts && update.contexts[t] == 0 ? nullptr : update.cache, slot, a);
  Token<T, kStates> token;
  token.load(a, p, t, cuda::parameter(a.dt_bias, p.channel, a.dt_bias_type));
  const float y = advance(h, A, token);
  store_output<T>(a, p, t, y + cuda::parameter(a.D, p.channel) * token.x);
  store_states(update.cache, h, p, slot, a);
}

}  // namespace scan_plain

void cuda_update(const Update& update, void* stream) {
  scan_plain::launch_blocks(update.arguments, update.arguments.tokens, [&]<class T, int kStates>(unsigned blocks, int threads) {
    scan_plain::update_kernel<T, kStates><<<blocks, threads, 0, static_cast<cudaStream_t>(stream)>>>(update);
  });
  if (const cudaError_t error = cudaGetLastError())
    throw std::runtime_error(std::string("selective_scan: ") + cudaGetErrorString(error));
}

}  // namespace molt::ops::scan
