// Products of a few rows with a weight on the CPU. The lanes of a vector are rows of x, which is transposed once: every number of
// the weight is read in order, once for a vector of rows, and sums need no additions across lanes.
#include <ATen/Parallel.h>

#include <algorithm>

#include "ops/lanes.h"
#include "ops/scratch.h"
#include "ops/skinny_linear/skinny_linear_kernels.h"

namespace molt::ops::skinny {

namespace skinny_cpu {

using Work = Products<float>;

// Outputs and rows that are worked on together, their sums in registers: a vector of sums an output, and enough of them to hide
// the latency of an addition.
template <int kOutputCount, int kRowCount>
struct Block {
  static constexpr int kOutputs = kOutputCount, kRows = kRowCount;
  using Sums = float[kOutputs][kRows];
};
using Narrow = Block<8, 8>;
using Wide = Block<8, 16>;

// sums[o][r] = sum over k of weight[first + o][k] * columns[k][r]; what lies beyond `out` stands for nothing. Plain loops on
// purpose: GCC 12 builds a broadcast of its own vector types element by element inside target clones.
template <class B>
MOLT_INLINE void sum_products(const float* weight, std::int64_t first, std::int64_t out, std::int64_t in, const float* columns,
                              typename B::Sums& sums) {
  const float* rows[B::kOutputs];
  for (int o = 0; o < B::kOutputs; ++o) rows[o] = weight + std::min(first + o, out - 1) * in;
  float total[B::kOutputs][B::kRows];
#pragma GCC unroll 8
  for (int o = 0; o < B::kOutputs; ++o)
#pragma omp simd
    for (int r = 0; r < B::kRows; ++r) total[o][r] = 0;
  // The next outputs' rows are fetched meanwhile, unless they are so long that they would be gone again.
  constexpr std::int64_t line = 16, near = 16384;  // numbers
  const std::int64_t next = B::kOutputs * in <= near ? B::kOutputs * in : 0;
  for (std::int64_t begin = 0; begin < in; begin += line) {
    const std::int64_t end = std::min(begin + line, in);
#pragma GCC unroll 8
    for (int o = 0; o < B::kOutputs; ++o) __builtin_prefetch(rows[o] + next + begin);
    for (std::int64_t k = begin; k < end; ++k, columns += B::kRows) {
#pragma GCC unroll 8
      for (int o = 0; o < B::kOutputs; ++o) {
        const float factor = rows[o][k];
#pragma omp simd
        for (int r = 0; r < B::kRows; ++r) total[o][r] += factor * columns[r];
      }
    }
  }
#pragma GCC unroll 8
  for (int o = 0; o < B::kOutputs; ++o)
#pragma omp simd
    for (int r = 0; r < B::kRows; ++r) sums[o][r] = total[o][r];
}

// Eight outputs from `first` of eight rows from `row`; sums[o * stride + r] belongs to output first + o of row row + r, and to
// its gate where there are `ups`.
MOLT_INLINE void store_outputs(const Work& work, const float* sums, const float* ups, std::int64_t stride, std::int64_t first,
                               std::int64_t row) {
  constexpr int lanes = kLanes<float>;
  const std::int64_t left = work.out - first;
  Lanes<float> block[lanes];
  for (int o = 0; o < lanes; ++o) {
    block[o] = load(sums + o * stride);
    if (ups) block[o] *= sigmoid(block[o]) * load(ups + o * stride);
  }
  transpose(block);
  for (int r = 0; r < lanes && row + r < work.rows; ++r) {
    const std::int64_t at = (row + r) * work.out + first;
    if (work.bias) block[r] += load(work.bias + first, left);
    if (work.residual) block[r] += load(work.residual + at, left);
    store(work.y + at, block[r], left);
  }
}

// Outputs from `first` of rows from `row`, whose x stand in `columns`.
template <class B>
MOLT_INLINE void multiply_block(const Work& work, const float* columns, std::int64_t row, std::int64_t first) {
  constexpr int lanes = kLanes<float>;
  typename B::Sums sums, ups;
  sum_products<B>(work.weight, first, work.out, work.in, columns, sums);
  if (work.swiglu) sum_products<B>(work.weight + work.out * work.in, first, work.out, work.in, columns, ups);
  for (int o = 0; o < B::kOutputs && first + o < work.out; o += lanes)
    for (int r = 0; r < B::kRows && row + r < work.rows; r += lanes)
      store_outputs(work, &sums[o][r], work.swiglu ? &ups[o][r] : nullptr, B::kRows, first + o, row + r);
}

// columns[k][r] = x[row + r][k], zeros for rows that are not there.
template <int kRows>
MOLT_INLINE void transpose_rows(const Work& work, std::int64_t row, float* columns) {
  constexpr int lanes = kLanes<float>;
  for (std::int64_t k = 0; k < work.in; k += lanes)
    for (std::int64_t begin = 0; begin < kRows; begin += lanes) {
      Lanes<float> block[lanes];
      for (int r = 0; r < lanes; ++r) {
        const std::int64_t from = row + begin + r;
        block[r] = from < work.rows ? load(work.x + from * work.in + k, work.in - k) : Lanes<float>{};
      }
      transpose(block);
      for (std::int64_t i = 0; i < std::min<std::int64_t>(lanes, work.in - k); ++i)
        store(columns + (k + i) * kRows + begin, block[i]);
    }
}

MOLT_CLONES void prepare_narrow(const Work& work, std::int64_t row, float* columns) {
  transpose_rows<Narrow::kRows>(work, row, columns);
}
MOLT_CLONES void multiply_narrow(const Work& work, const float* columns, std::int64_t row, std::int64_t first) {
  multiply_block<Narrow>(work, columns, row, first);
}
MOLT_WIDE void prepare_wide(const Work& work, std::int64_t row, float* columns) {
  transpose_rows<Wide::kRows>(work, row, columns);
}
MOLT_WIDE void multiply_wide(const Work& work, const float* columns, std::int64_t row, std::int64_t first) {
  multiply_block<Wide>(work, columns, row, first);
}

struct Kernel {
  void (*prepare)(const Work& work, std::int64_t row, float* columns);
  void (*multiply)(const Work& work, const float* columns, std::int64_t row, std::int64_t first);
  std::int64_t outputs, rows;
};

}  // namespace skinny_cpu

void cpu_multiply(const Products<float>& work) {
  using namespace skinny_cpu;
  const Kernel kernel = has_wide_lanes() && work.rows > Narrow::kRows
                            ? Kernel{prepare_wide, multiply_wide, Wide::kOutputs, Wide::kRows}
                            : Kernel{prepare_narrow, multiply_narrow, Narrow::kOutputs, Narrow::kRows};
  const std::int64_t panels = (work.rows + kernel.rows - 1) / kernel.rows, panel = work.in * kernel.rows;
  Scratch<float> columns(panels * panel);
  for (std::int64_t i = 0; i < panels; ++i) kernel.prepare(work, i * kernel.rows, columns.get() + i * panel);
  constexpr std::int64_t worth_a_thread = 65536;  // multiplications
  const std::int64_t blocks = (work.out + kernel.outputs - 1) / kernel.outputs;
  const std::int64_t grain = worth_a_thread / std::max<std::int64_t>(1, panels * panel * kernel.outputs) + 1;
  at::parallel_for(0, blocks, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t block = begin; block < end; ++block)
      for (std::int64_t i = 0; i < panels; ++i)
        kernel.multiply(work, columns.get() + i * panel, i * kernel.rows, block * kernel.outputs);
  });
}

}  // namespace molt::ops::skinny
