// What the kernels of attention over the cache share: which keys a block works on, where they lie, and how what its warps found
// is joined.
#pragma once
#include "ops/attention/attention_decode_kernels.h"
#include "ops/cuda_common.cuh"

namespace molt::ops::decode {

namespace decode_cuda {

constexpr int kWarps = 4, kTile = 16;  // of a block; keys that a warp works on at a time
constexpr float kLog2e = 1.44269504f;
constexpr unsigned kAll = 0xffffffffu;

using cuda::as;

// What a block works on: part `split` of the keys of one sequence, for some query heads of one key head.
struct Work {
  __device__ Work(const Arguments& a, int queries) {
    const int group = static_cast<int>(a.heads / a.kv_heads), chunks = (group + queries - 1) / queries;
    split = blockIdx.z;
    kv_head = blockIdx.y / chunks;
    first_head = kv_head * group + blockIdx.y % chunks * queries;
    heads = min(queries, (kv_head + 1) * group - first_head);
    sequence = blockIdx.x;
    row = a.offsets[sequence];
    one_token = a.offsets[sequence + 1] - row == 1;
    end = a.contexts[sequence] + 1;
    begin = a.window > 0 && a.window < end ? end - static_cast<int>(a.window) : 0;
    const int first = begin / kTile, tiles = (end + kTile - 1) / kTile - first;
    const int share = (tiles + static_cast<int>(a.splits) - 1) / static_cast<int>(a.splits);
    first_tile = first + split * share;
    last_tile = first + min(tiles, (split + 1) * share);
  }
  int split, kv_head, first_head, heads, sequence, row;
  bool one_token;
  int begin, end;             // the keys that the token sees
  int first_tile, last_tile;  // tiles [first, last) of this part
};

// The cache's row of each position of a sequence.
struct Rows {
  __device__ Rows(const Arguments& a, int sequence)
      : table(a.block_table + sequence * a.max_blocks), block_size(static_cast<int>(a.block_size)) {}
  __device__ std::int64_t operator()(int position) const {
    return static_cast<std::int64_t>(table[position / block_size]) * block_size + position % block_size;
  }
  const std::int32_t* table;
  int block_size;
};

// What the warps of a block found for each of its queries, in shared memory: the weighted sum of values, the largest score, and
// the sum of weights relative to it. Joined and written as the result, or as this part's share of it.
template <class T, int kQueries>
__device__ void finish(const Arguments& a, const Work& work, const float* sums, const float (*stats)[kQueries][2]) {
  const int size = static_cast<int>(a.head_size);
  const std::int64_t stride = size + 2;
  for (int i = threadIdx.x; i < work.heads * size; i += kWarps * 32) {
    const int query = i / size, d = i % size;
    float top = -INFINITY;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) top = fmaxf(top, stats[w][query][0]);
    float weight = 0.0f, sum = 0.0f;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float share = stats[w][query][0] == -INFINITY ? 0.0f : exp2f(stats[w][query][0] - top);
      weight += share * stats[w][query][1];
      if (share > 0.0f) sum += share * sums[(w * kQueries + query) * size + d];
    }
    const std::int64_t head = work.first_head + query;
    if (a.splits == 1) {
      as<T>(a.out)[(work.row * a.heads + head) * size + d] = static_cast<T>(weight > 0.0f ? sum / weight : 0.0f);
    } else {
      float* part = a.partial + ((work.sequence * a.heads + head) * a.splits + work.split) * stride;
      part[d] = sum;
      if (d == 0) part[size] = top, part[size + 1] = weight;
    }
  }
}

// In attention_decode_tensor_cuda.cu: bf16 heads of 64 and 128 in caches whose blocks hold whole tiles, kTensorQueries query
// heads at a time.
constexpr int kTensorQueries = 8;
bool on_tensor_cores(const Arguments& arguments);
void launch_tensor(const Arguments& arguments, dim3 grid, cudaStream_t stream);

}  // namespace decode_cuda

}  // namespace molt::ops::decode
