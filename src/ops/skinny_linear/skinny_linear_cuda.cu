// A block multiplies 16 rows of the weight; its warps take turns along the inner dimension. Tensor cores do the arithmetic, with
// the weight's rows as rows and up to eight rows of x as columns, so that eight cost what one costs. A product does not care in
// which order its inner index runs: every thread loads 16 adjacent bytes straight from memory into the registers that the
// instruction reads, eight such loads of the weight in flight at a time for each of its two rows.
#include "ops/cuda_common.cuh"
#include "ops/skinny_linear/skinny_linear_kernels.h"

namespace molt::ops::skinny {

namespace skinny_cuda {

constexpr int kRows = 16, kColumns = 32, kMost = static_cast<int>(kMostRows);  // of the weight at a time; columns of one load

__device__ uint4 load_weight(const __nv_bfloat16* from) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(from));
  return v;
}

// sums (16 x 8, fp32) += a (16 x 16) b (16 x 8)
__device__ void multiply(float* sums, std::uint32_t a0, std::uint32_t a1, std::uint32_t a2, std::uint32_t a3, std::uint32_t b0,
                         std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// A thread is row g and g + 8 of the 16, and columns 8 p … 8 p + 7 of each 32. With swiglu, row g of the gate and of up.
template <int kWarps, int kLoads, int kBlocks>
__global__ void __launch_bounds__(kWarps * 32, kBlocks) multiply_kernel(const Arguments a) {
  __shared__ float shared[kWarps][kRows][kMost + 1];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, p = lane % 4;
  const int first = static_cast<int>(blockIdx.x) * (a.swiglu ? kRows / 2 : kRows), steps = static_cast<int>(a.in / kColumns);
  const auto* weight = static_cast<const __nv_bfloat16*>(a.weight) + 8 * p;
  const __nv_bfloat16 *upper = weight + (first + g) * a.in,
                      *lower = weight + (a.swiglu ? a.out + first + g : first + g + kRows / 2) * a.in,
                      *x = static_cast<const __nv_bfloat16*>(a.x) + g * a.in + 8 * p;
  const bool has_row = g < a.rows;
  float sums[4] = {};
  for (int step = warp * kLoads; step < steps; step += kWarps * kLoads) {
    uint4 u[kLoads], l[kLoads], v[kLoads];
    // Behind the last column the last ones are read again, times zeros: a load that may not happen would wait for the one before.
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int place = min(step + i, steps - 1) * kColumns;
      u[i] = load_weight(upper + place);
      l[i] = load_weight(lower + place);
    }
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      v[i] = has_row && step + i < steps ? *reinterpret_cast<const uint4*>(x + (step + i) * kColumns) : make_uint4(0, 0, 0, 0);
    }
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      multiply(sums, u[i].x, l[i].x, u[i].y, l[i].y, v[i].x, v[i].y);
      multiply(sums, u[i].z, l[i].z, u[i].w, l[i].w, v[i].z, v[i].w);
    }
  }
  shared[warp][g][2 * p] = sums[0], shared[warp][g][2 * p + 1] = sums[1];
  shared[warp][g + 8][2 * p] = sums[2], shared[warp][g + 8][2 * p + 1] = sums[3];
  __syncthreads();

  const auto total = [&](int row, int column) {
    float sum = 0.0f;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) sum += shared[w][row][column];
    return sum;
  };
  const int outputs = a.swiglu ? kRows / 2 : kRows;
  for (int i = threadIdx.x; i < outputs * a.rows; i += kWarps * 32) {
    const int row = i % outputs, column = i / outputs;
    const std::int64_t place = column * a.out + first + row;
    float value = total(row, column);
    if (a.swiglu) value = value / (1.0f + __expf(-value)) * total(row + kRows / 2, column);
    if (a.bias) value += static_cast<float>(static_cast<const __nv_bfloat16*>(a.bias)[first + row]);
    if (a.residual) value += static_cast<float>(static_cast<const __nv_bfloat16*>(a.residual)[place]);
    static_cast<__nv_bfloat16*>(a.y)[place] = __float2bfloat16(value);
  }
}

}  // namespace skinny_cuda

void cuda_multiply(const Arguments& a, void* stream) {
  using namespace skinny_cuda;
  if (a.rows == 0 || a.out == 0) return;
  const auto blocks = static_cast<unsigned>(a.out / (a.swiglu ? kRows / 2 : kRows));
  constexpr unsigned few = 64;  // blocks that leave most of a card idle: then each gets more warps
  blocks < few ? multiply_kernel<16, 5, 1><<<blocks, 16 * 32, 0, static_cast<cudaStream_t>(stream)>>>(a)
               : multiply_kernel<4, 8, 4><<<blocks, 4 * 32, 0, static_cast<cudaStream_t>(stream)>>>(a);
  cuda::check_launch("skinny_linear");
}

}  // namespace molt::ops::skinny
