// Attention over the cache by tensor cores, with keys and dimensions as rows and heads as columns, so that eight heads fill an
// instruction: scores (16 keys x 8 heads) = K Q^T, sums (16 dimensions x 8 heads) = V^T P^T. A product does not care in which
// order its inner index runs and rows may be numbered at will, so every thread loads 16 adjacent bytes straight from the cache
// into the registers that the instruction reads.
#include "ops/attention/attention_decode_cuda.cuh"

namespace molt::ops::decode {

namespace decode_cuda {

using Half8 = uint4;  // eight bf16 values

__device__ Half8 load8(const __nv_bfloat16* from, bool there) {
  return there ? __ldcs(reinterpret_cast<const uint4*>(from)) : make_uint4(0, 0, 0, 0);
}
__device__ std::uint32_t word(const Half8& v, int i) {
  return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}
// c (16 x 8, fp32) += a (16 x 16) b (16 x 8)
__device__ void multiply(float* c, std::uint32_t a0, std::uint32_t a1, std::uint32_t a2, std::uint32_t a3, std::uint32_t b0,
                         std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
__device__ std::uint32_t transposed(std::uint32_t matrix) {
  std::uint32_t result;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(matrix));
  return result;
}
__device__ std::uint32_t packed(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const std::uint32_t*>(&pair);
}

// A thread is row g = lane / 4 and column pair p = lane % 4 of a fragment. It holds of 16 keys
//   K   keys g and g + 8, dimensions 32 j + 8 p … + 7     (inner index of a score)
//   V   keys 2 p, 2 p + 1, 2 p + 8, 2 p + 9, dimensions 64 j + 8 g … + 7
template <int kSize>
struct Keys {
  Half8 part[2][kSize / 32];
  __device__ void load(const __nv_bfloat16* cache, std::int64_t tile_row, std::int64_t row_size, int lane, int valid_from,
                       int valid_to) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int key = lane / 4 + 8 * r;
#pragma unroll
      for (int j = 0; j < kSize / 32; ++j)
        part[r][j] = load8(cache + (tile_row + key) * row_size + 32 * j + 8 * (lane % 4), key >= valid_from && key < valid_to);
    }
  }
};
template <int kSize>
struct Values {
  Half8 part[4][kSize / 64];
  __device__ void load(const __nv_bfloat16* cache, std::int64_t tile_row, std::int64_t row_size, int lane, int valid_from,
                       int valid_to) {
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const int key = 2 * (lane % 4) + r % 2 + r / 2 * 8;
#pragma unroll
      for (int j = 0; j < kSize / 64; ++j)
        part[r][j] = load8(cache + (tile_row + key) * row_size + 64 * j + lane / 4 * 8, key >= valid_from && key < valid_to);
    }
  }
};

template <int kSize, int kBlocks>
__global__ void __launch_bounds__(kWarps * 32, kBlocks) tensor_kernel(const Arguments a) {
  constexpr int kQueries = kTensorQueries, kPairs = kSize / 16;  // fragments of 16 dimensions
  __shared__ float sums[kWarps * kQueries * kSize];
  __shared__ float stats[kWarps][kQueries][2];
  const Work work(a, kQueries);
  if (!work.one_token) return;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, p = lane % 4;
  const std::int64_t row_size = a.kv_heads * kSize;
  const __nv_bfloat16 *k_cache = as<__nv_bfloat16>(a.k_cache) + work.kv_head * kSize,
                      *v_cache = as<__nv_bfloat16>(a.v_cache) + work.kv_head * kSize;

  Half8 q[kSize / 32];  // of head g, as K's keys
#pragma unroll
  for (int j = 0; j < kSize / 32; ++j)
    q[j] =
        load8(as<__nv_bfloat16>(a.q) + work.row * a.q_token + (work.first_head + g) * a.q_head + 32 * j + 8 * p, g < work.heads);

  // A block of the cache holds whole tiles.
  const Rows rows(a, work.sequence);
  const auto first_valid = [&](int tile) { return work.begin - tile * kTile; };
  const auto last_valid = [&](int tile) { return work.end - tile * kTile; };
  const auto row_of = [&](int tile) { return tile < work.last_tile ? rows(tile * kTile) : 0; };
  float out[kPairs][4] = {};                              // dimensions 64 j + 8 g + 2 i, + 1 of heads 2 p, 2 p + 1
  float top[2] = {-INFINITY, -INFINITY}, weight[2] = {};  // of heads 2 p and 2 p + 1; weight: of this thread's keys
  const float scale = a.scale * kLog2e;
  int tile = work.first_tile + warp;
  std::int64_t row = row_of(tile);
  Keys<kSize> keys;
  Values<kSize> values;
  const auto valid_to = [&](int of) { return of < work.last_tile ? last_valid(of) : 0; };
  keys.load(k_cache, row, row_size, lane, first_valid(tile), valid_to(tile));
  values.load(v_cache, row, row_size, lane, first_valid(tile), valid_to(tile));
  for (; tile < work.last_tile; tile += kWarps) {
    float score[4] = {};  // keys g (twice) and g + 8 of heads 2 p and 2 p + 1
#pragma unroll
    for (int j = 0; j < kSize / 32; ++j) {
#pragma unroll
      for (int i = 0; i < 4; i += 2)
        multiply(score, word(keys.part[0][j], i), word(keys.part[1][j], i), word(keys.part[0][j], i + 1),
                 word(keys.part[1][j], i + 1), word(q[j], i), word(q[j], i + 1));
    }
    const int next = tile + kWarps;
    const std::int64_t next_row = row_of(next);
    keys.load(k_cache, next_row, row_size, lane, first_valid(next), valid_to(next));

    float shrink[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const bool low = g >= first_valid(tile) && g < last_valid(tile),
                 high = g + 8 >= first_valid(tile) && g + 8 < last_valid(tile);
      score[h] = low ? score[h] * scale : -INFINITY;
      score[h + 2] = high ? score[h + 2] * scale : -INFINITY;
      float higher = fmaxf(score[h], score[h + 2]);
#pragma unroll
      for (int other = 4; other < 32; other *= 2) higher = fmaxf(higher, __shfl_xor_sync(kAll, higher, other));
      higher = fmaxf(higher, top[h]);
      shrink[h] = exp2f(top[h] - higher);
      top[h] = higher;
      score[h] = exp2f(score[h] - higher);
      score[h + 2] = exp2f(score[h + 2] - higher);
      weight[h] = weight[h] * shrink[h] + score[h] + score[h + 2];
    }
    if (__any_sync(kAll, shrink[0] != 1.0f || shrink[1] != 1.0f)) {
#pragma unroll
      for (int m = 0; m < kPairs; ++m)
#pragma unroll
        for (int i = 0; i < 4; ++i) out[m][i] *= shrink[i % 2];
    }
    const std::uint32_t b0 = transposed(packed(score[0], score[1])), b1 = transposed(packed(score[2], score[3]));
#pragma unroll
    for (int m = 0; m < kPairs; ++m) {
      const int j = m / 4, i = m % 4;
      const std::uint32_t v0 = word(values.part[0][j], i), v1 = word(values.part[1][j], i), v2 = word(values.part[2][j], i),
                          v3 = word(values.part[3][j], i);
      multiply(out[m], __byte_perm(v0, v1, 0x5410), __byte_perm(v0, v1, 0x7632), __byte_perm(v2, v3, 0x5410),
               __byte_perm(v2, v3, 0x7632), b0, b1);
    }
    values.load(v_cache, next_row, row_size, lane, first_valid(next), valid_to(next));
  }

#pragma unroll
  for (int h = 0; h < 2; ++h) {
#pragma unroll
    for (int other = 4; other < 32; other *= 2) weight[h] += __shfl_xor_sync(kAll, weight[h], other);
    if (g == 0) stats[warp][2 * p + h][0] = top[h], stats[warp][2 * p + h][1] = weight[h];
#pragma unroll
    for (int m = 0; m < kPairs; ++m) {
      float* to = sums + (warp * kQueries + 2 * p + h) * kSize + 64 * (m / 4) + 8 * g + 2 * (m % 4);
      to[0] = out[m][h], to[1] = out[m][h + 2];
    }
  }
  __syncthreads();
  finish<__nv_bfloat16, kQueries>(a, work, sums, stats);
}

bool on_tensor_cores(const Arguments& a) {
  return a.bfloat16 && (a.head_size == 64 || a.head_size == 128) && a.block_size % kTile == 0 && a.q_head % 8 == 0 &&
         a.q_token % 8 == 0;
}

void launch_tensor(const Arguments& a, dim3 grid, cudaStream_t stream) {
  a.head_size == 64 ? tensor_kernel<64, 4><<<grid, kWarps * 32, 0, stream>>>(a)
                    : tensor_kernel<128, 3><<<grid, kWarps * 32, 0, stream>>>(a);
}

}  // namespace decode_cuda

}  // namespace molt::ops::decode
