// Attention of one new token a sequence over its cache, bound by reading keys and values once: the query heads that share a key
// head are worked on together, and a sequence's keys are divided among blocks (Flash-Decoding, Dao et al. 2023) whose sums a
// second kernel joins. The kernel here takes any head, fp32 and bf16; the usual ones in bf16 go through tensor cores.
#include <algorithm>

#include "ops/attention/attention_decode_cuda.cuh"

namespace molt::ops::decode {

namespace decode_cuda {

constexpr int kJoiners = 4;  // threads that share a dimension when parts are joined

// One block a head of a sequence. Each warp weighs all parts, a lane one of 32 at a time, and adds up every fourth.
template <class T>
__global__ void join_kernel(const Arguments a) {
  extern __shared__ float sums[];
  const std::int64_t head = blockIdx.y, sequence = blockIdx.x;
  const int size = static_cast<int>(a.head_size), stride = size + 2, splits = static_cast<int>(a.splits);
  const int row = a.offsets[sequence], d = threadIdx.x, joiner = threadIdx.y, lane = threadIdx.x % 32;
  if (a.offsets[sequence + 1] - row != 1) return;
  const float* parts = a.partial + (sequence * a.heads + head) * splits * stride;
  float top = -INFINITY;
  for (int part = lane; part < splits; part += 32) top = fmaxf(top, parts[part * stride + size]);
#pragma unroll
  for (int other = 16; other > 0; other /= 2) top = fmaxf(top, __shfl_xor_sync(kAll, top, other));
  float weight = 0.0f, sum = 0.0f;
  for (int first = 0; first < splits; first += 32) {
    float share = 0.0f;
    if (first + lane < splits && top > -INFINITY) {
      const float* stats = parts + (first + lane) * stride + size;
      share = exp2f(stats[0] - top);
      weight += share * stats[1];
    }
#pragma unroll
    for (int i = 0; i < 32 / kJoiners; ++i) {
      const int part = i * kJoiners + joiner;
      const float of_part = __shfl_sync(kAll, share, part);
      if (first + part < splits && d < size) sum += of_part * parts[(first + part) * stride + d];
    }
  }
#pragma unroll
  for (int other = 16; other > 0; other /= 2) weight += __shfl_xor_sync(kAll, weight, other);
  if (d < size) sums[joiner * size + d] = sum;
  __syncthreads();
  if (joiner > 0 || d >= size) return;
#pragma unroll
  for (int other = 1; other < kJoiners; ++other) sum += sums[other * size + d];
  as<T>(a.out)[(row * a.heads + head) * size + d] = static_cast<T>(weight > 0.0f ? sum / weight : 0.0f);
}

// The dimensions of a row are spread over a warp.
template <class T, int kQueries, int kValues>
__global__ void __launch_bounds__(kWarps * 32) plain_kernel(const Arguments a) {
  extern __shared__ float sums[];
  __shared__ float stats[kWarps][kQueries][2];
  constexpr int kKeys = 4;  // at a time
  const Work work(a, kQueries);
  if (!work.one_token) return;
  const Rows rows(a, work.sequence);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, size = static_cast<int>(a.head_size);
  const std::int64_t row_size = a.kv_heads * a.head_size;

  float q[kQueries][kValues], out[kQueries][kValues] = {}, top[kQueries], weight[kQueries] = {};
#pragma unroll
  for (int i = 0; i < kQueries; ++i) {
    top[i] = -INFINITY;
#pragma unroll
    for (int v = 0; v < kValues; ++v) {
      const int d = lane + 32 * v;
      q[i][v] =
          i < work.heads && d < size
              ? static_cast<float>(as<T>(a.q)[work.row * a.q_token + (work.first_head + i) * a.q_head + d]) * a.scale * kLog2e
              : 0.0f;
    }
  }
  const int first = max(work.first_tile * kTile, work.begin), last = min(work.last_tile * kTile, work.end);
  for (int position = first + warp * kKeys; position < last; position += kWarps * kKeys) {
    float k[kKeys][kValues], v[kKeys][kValues], score[kKeys][kQueries];
#pragma unroll
    for (int j = 0; j < kKeys; ++j) {
      const std::int64_t place = position + j < last ? rows(position + j) * row_size + work.kv_head * size : 0;
#pragma unroll
      for (int i = 0; i < kValues; ++i) {
        const int d = lane + 32 * i;
        const bool there = position + j < last && d < size;
        k[j][i] = there ? static_cast<float>(as<T>(a.k_cache)[place + d]) : 0.0f;
        v[j][i] = there ? static_cast<float>(as<T>(a.v_cache)[place + d]) : 0.0f;
      }
    }
#pragma unroll
    for (int j = 0; j < kKeys; ++j) {
#pragma unroll
      for (int i = 0; i < kQueries; ++i) {
        float dot = 0.0f;
#pragma unroll
        for (int d = 0; d < kValues; ++d) dot += q[i][d] * k[j][d];
#pragma unroll
        for (int other = 16; other > 0; other /= 2) dot += __shfl_xor_sync(kAll, dot, other);
        score[j][i] = position + j < last ? dot : -INFINITY;
      }
    }
#pragma unroll
    for (int i = 0; i < kQueries; ++i) {
      float higher = top[i];
#pragma unroll
      for (int j = 0; j < kKeys; ++j) higher = fmaxf(higher, score[j][i]);
      const float shrink = exp2f(top[i] - higher);
      top[i] = higher;
      weight[i] *= shrink;
#pragma unroll
      for (int d = 0; d < kValues; ++d) out[i][d] *= shrink;
#pragma unroll
      for (int j = 0; j < kKeys; ++j) {
        const float share = exp2f(score[j][i] - higher);
        weight[i] += share;
#pragma unroll
        for (int d = 0; d < kValues; ++d) out[i][d] += share * v[j][d];
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kQueries; ++i) {
#pragma unroll
    for (int v = 0; v < kValues; ++v)
      if (lane + 32 * v < size) sums[(warp * kQueries + i) * size + lane + 32 * v] = out[i][v];
    if (lane == 0) stats[warp][i][0] = top[i], stats[warp][i][1] = weight[i];
  }
  __syncthreads();
  finish<T, kQueries>(a, work, sums, stats);
}

// Query heads that a block works on together.
int queries_of(const Arguments& a) {
  return on_tensor_cores(a) ? kTensorQueries : a.heads == a.kv_heads ? 1 : 4;
}
int head_chunks(const Arguments& a) {
  const auto group = static_cast<int>(a.heads / a.kv_heads), queries = queries_of(a);
  return static_cast<int>(a.kv_heads) * ((group + queries - 1) / queries);
}

template <class T, int kQueries>
void launch_plain(const Arguments& a, dim3 grid, cudaStream_t stream) {
  const std::size_t bytes = sizeof(float) * kWarps * kQueries * a.head_size;
  if (a.head_size <= 64) return plain_kernel<T, kQueries, 2><<<grid, kWarps * 32, bytes, stream>>>(a);
  if (a.head_size <= 128) return plain_kernel<T, kQueries, 4><<<grid, kWarps * 32, bytes, stream>>>(a);
  plain_kernel<T, kQueries, 8><<<grid, kWarps * 32, bytes, stream>>>(a);
}

template <class T>
void launch(const Arguments& a, cudaStream_t stream) {
  // Sequences may be many: only the first dimension takes more than 65535.
  const dim3 grid(static_cast<unsigned>(a.sequences), static_cast<unsigned>(head_chunks(a)), static_cast<unsigned>(a.splits));
  if (on_tensor_cores(a)) {
    launch_tensor(a, grid, stream);
  } else {
    queries_of(a) == 1 ? launch_plain<T, 1>(a, grid, stream) : launch_plain<T, 4>(a, grid, stream);
  }
  if (a.splits > 1) {
    const dim3 heads(static_cast<unsigned>(a.sequences), static_cast<unsigned>(a.heads));
    const dim3 threads(static_cast<unsigned>((a.head_size + 31) / 32 * 32), kJoiners);
    join_kernel<T><<<heads, threads, sizeof(float) * kJoiners * a.head_size, stream>>>(a);
  }
}

}  // namespace decode_cuda

std::int64_t splits_for(const Arguments& a, std::int64_t longest) {
  using namespace decode_cuda;
  // More blocks than run at once, so that sequences of unlike lengths keep all processors busy; but joining costs, too.
  constexpr std::int64_t blocks_a_processor = 8, most = 32, least = 2 * kWarps * kTile;  // least: keys that are worth a block
  const std::int64_t blocks = head_chunks(a) * std::max<std::int64_t>(a.sequences, 1);
  return std::clamp<std::int64_t>(blocks_a_processor * cuda::multiprocessors() / blocks, 1,
                                  std::clamp<std::int64_t>(longest / least, 1, most));
}

std::int64_t partial_size(const Arguments& a) {
  return a.splits == 1 ? 0 : a.sequences * a.heads * a.splits * (a.head_size + 2);
}

void cuda_attend(const Arguments& a, void* stream) {
  if (a.sequences == 0) return;
  a.bfloat16 ? decode_cuda::launch<__nv_bfloat16>(a, static_cast<cudaStream_t>(stream))
             : decode_cuda::launch<float>(a, static_cast<cudaStream_t>(stream));
  cuda::check_launch("attention_with_cache");
}

}  // namespace molt::ops::decode
