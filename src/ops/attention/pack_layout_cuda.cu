#include <cuda_runtime.h>

#include "ops/attention/pack_layout.h"

namespace molt::ops {

namespace pack_layout {

__global__ void fill(PackLayout layout) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i > layout.places) return;
  const std::int64_t here = min(i, layout.sequences), next = min(i + 1, layout.sequences);
  const std::int32_t query = layout.cu_queries[here], key = layout.cu_keys[here];
  for (int t = 0; t < layout.count; ++t)
    layout.offsets[t * (layout.places + 1) + i] = layout.tensors[t].row * (layout.tensors[t].of_keys ? key : query);
  if (i == layout.places) return;
  layout.lengths[i] = layout.cu_queries[next] - query;
  layout.lengths[layout.places + i] = layout.cu_keys[next] - key;
}

}  // namespace pack_layout

void lay_out_pack(const PackLayout& layout, void* stream) {
  constexpr int kThreads = 128;
  const unsigned blocks = static_cast<unsigned>((layout.places + kThreads) / kThreads);
  pack_layout::fill<<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(layout);
}

}  // namespace molt::ops
