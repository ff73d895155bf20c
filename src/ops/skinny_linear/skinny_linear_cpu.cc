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

// Vectors of kVectorBytes: their lanes are as many rows, and as many outputs are stored together. Sums of eight outputs are in
// registers at a time, enough to hide the latency of an addition.
template <int kVectorBytes>
struct Form {
  static constexpr int kBytes = kVectorBytes, kCount = kLanes<float, kBytes>, kOutputs = 8;
};
using Narrow = Form<32>;
using Wide = Form<64>;

// sums[o][r] = sum over k of weight[first + o][k] * columns[k][r]; what lies beyond `out` stands for nothing. Plain loops on
// purpose: GCC 12 builds a broadcast of its own vector types element by element inside target clones.
template <class F>
MOLT_INLINE void sum_products(const float* weight, std::int64_t first, std::int64_t out, std::int64_t in, const float* columns,
                              float (*sums)[F::kCount]) {
  const float* rows[F::kOutputs];
  for (int o = 0; o < F::kOutputs; ++o) rows[o] = weight + std::min(first + o, out - 1) * in;
  float total[F::kOutputs][F::kCount];
#pragma GCC unroll 8
  for (int o = 0; o < F::kOutputs; ++o)
#pragma omp simd
    for (int r = 0; r < F::kCount; ++r) total[o][r] = 0;
  // The next outputs' rows are fetched meanwhile, unless they are so long that they would be gone again.
  constexpr std::int64_t line = 16, near = 16384;  // numbers
  const std::int64_t next = F::kOutputs * in <= near ? F::kOutputs * in : 0;
  for (std::int64_t begin = 0; begin < in; begin += line) {
    const std::int64_t end = std::min(begin + line, in);
#pragma GCC unroll 8
    for (int o = 0; o < F::kOutputs; ++o) __builtin_prefetch(rows[o] + next + begin);
    for (std::int64_t k = begin; k < end; ++k, columns += F::kCount) {
#pragma GCC unroll 8
      for (int o = 0; o < F::kOutputs; ++o) {
        const float factor = rows[o][k];
#pragma omp simd
        for (int r = 0; r < F::kCount; ++r) total[o][r] += factor * columns[r];
      }
    }
  }
#pragma GCC unroll 8
  for (int o = 0; o < F::kOutputs; ++o)
#pragma omp simd
    for (int r = 0; r < F::kCount; ++r) sums[o][r] = total[o][r];
}

// Outputs from `first` of rows from `row`, a vector of each; sums[o][r] belongs to output first + o of row row + r, and to its
// gate where there are `ups`.
template <class F>
MOLT_INLINE void store_outputs(const Work& work, const float (*sums)[F::kCount], const float (*ups)[F::kCount],
                               std::int64_t first, std::int64_t row) {
  const std::int64_t left = work.out - first;
  Lanes<float, F::kBytes> block[F::kCount];
#pragma GCC unroll 16
  for (int o = 0; o < F::kCount; ++o) block[o] = load<F::kBytes>(sums[o]);
  if (ups) {
#pragma GCC unroll 16
    for (int o = 0; o < F::kCount; ++o) block[o] *= sigmoid(block[o]) * load<F::kBytes>(ups[o]);
  }
  transpose(block);
  for (int r = 0; r < F::kCount && row + r < work.rows; ++r) {
    const std::int64_t at = (row + r) * work.out + first;
    if (work.bias) block[r] += load<F::kBytes>(work.bias + first, left);
    if (work.residual) block[r] += load<F::kBytes>(work.residual + at, left);
    store(work.y + at, block[r], left);
  }
}

// A vector of outputs from `first` of rows from `row`, whose x stand in `columns`.
template <class F>
MOLT_INLINE void multiply_block(const Work& work, const float* columns, std::int64_t row, std::int64_t first) {
  alignas(64) float sums[F::kCount][F::kCount], ups[F::kCount][F::kCount];
  for (std::int64_t o = 0; o < F::kCount; o += F::kOutputs) {
    sum_products<F>(work.weight, first + o, work.out, work.in, columns, sums + o);
    if (work.swiglu) sum_products<F>(work.weight + work.out * work.in, first + o, work.out, work.in, columns, ups + o);
  }
  store_outputs<F>(work, sums, work.swiglu ? ups : nullptr, first, row);
}

// columns[k][r] = x[row + r][k], zeros for rows that are not there.
template <class F>
MOLT_INLINE void transpose_rows(const Work& work, std::int64_t row, float* columns) {
  for (std::int64_t k = 0; k < work.in; k += F::kCount) {
    Lanes<float, F::kBytes> block[F::kCount];
    for (std::int64_t r = 0; r < F::kCount; ++r) {
      const bool there = row + r < work.rows;
      block[r] = there ? load<F::kBytes>(work.x + (row + r) * work.in + k, work.in - k) : Lanes<float, F::kBytes>{};
    }
    transpose(block);
    for (std::int64_t i = 0; i < std::min<std::int64_t>(F::kCount, work.in - k); ++i)
      store(columns + (k + i) * F::kCount, block[i]);
  }
}

MOLT_CLONES void prepare_narrow(const Work& work, std::int64_t row, float* columns) {
  transpose_rows<Narrow>(work, row, columns);
}
MOLT_CLONES void multiply_narrow(const Work& work, const float* columns, std::int64_t row, std::int64_t first) {
  multiply_block<Narrow>(work, columns, row, first);
}
MOLT_WIDE void prepare_wide(const Work& work, std::int64_t row, float* columns) {
  transpose_rows<Wide>(work, row, columns);
}
MOLT_WIDE void multiply_wide(const Work& work, const float* columns, std::int64_t row, std::int64_t first) {
  multiply_block<Wide>(work, columns, row, first);
}

struct Kernel {
  void (*prepare)(const Work& work, std::int64_t row, float* columns);
  void (*multiply)(const Work& work, const float* columns, std::int64_t row, std::int64_t first);
  std::int64_t lanes;  // rows of a panel of columns, and outputs of a call
};

}  // namespace skinny_cpu

void cpu_multiply(const Products<float>& work) {
  using namespace skinny_cpu;
  const Kernel kernel = has_wide_lanes() && work.rows > Narrow::kCount ? Kernel{prepare_wide, multiply_wide, Wide::kCount}
                                                                       : Kernel{prepare_narrow, multiply_narrow, Narrow::kCount};
  const std::int64_t lanes = kernel.lanes, panels = (work.rows + lanes - 1) / lanes, panel = work.in * lanes;
  Scratch<float> columns(panels * panel);
  for (std::int64_t i = 0; i < panels; ++i) kernel.prepare(work, i * lanes, columns.get() + i * panel);
  constexpr std::int64_t worth_a_thread = 65536;  // multiplications
  const std::int64_t blocks = (work.out + lanes - 1) / lanes;
  const std::int64_t grain = worth_a_thread / std::max<std::int64_t>(1, panels * panel * lanes) + 1;
  at::parallel_for(0, blocks, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t block = begin; block < end; ++block)
      for (std::int64_t i = 0; i < panels; ++i) kernel.multiply(work, columns.get() + i * panel, i * lanes, block * lanes);
  });
}

}  // namespace molt::ops::skinny
