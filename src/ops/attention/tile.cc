#include "ops/attention/tile.h"

namespace molt::ops {

namespace attention_tile {

// Rows x Columns x Chains sums stay in registers: 6 x 16 floats fill 12 of AVX2's 16, beside two vectors of b and one element of
// a. An addition takes several cycles, so blocks of few vectors keep Chains sums of each element, over every Chains-th d.
// Plain loops on purpose: GCC 12 builds a broadcast of its own vector types element by element inside target clones.
template <int Rows, int Columns, int Chains, class T>
MOLT_INLINE void multiply_block(const Product<T>& p, const T* a, const T* b, T* c) {
  T total[Chains][Rows][Columns];
#pragma GCC unroll 8
  for (int chain = 0; chain < Chains; ++chain) {
#pragma GCC unroll 8
    for (int i = 0; i < Rows; ++i)
#pragma omp simd
      for (int j = 0; j < Columns; ++j) total[chain][i][j] = 0;
  }
  std::int64_t d = 0;
  for (; d + Chains <= p.depth; d += Chains) {
#pragma GCC unroll 8
    for (int chain = 0; chain < Chains; ++chain, a += p.a_depth, b += p.b_depth) {
#pragma GCC unroll 8
      for (int i = 0; i < Rows; ++i) {
        const T left = a[i * p.a_row];
#pragma omp simd
        for (int j = 0; j < Columns; ++j) total[chain][i][j] += left * b[j];
      }
    }
  }
  for (; d < p.depth; ++d, a += p.a_depth, b += p.b_depth) {
#pragma GCC unroll 8
    for (int i = 0; i < Rows; ++i) {
      const T left = a[i * p.a_row];
#pragma omp simd
      for (int j = 0; j < Columns; ++j) total[0][i][j] += left * b[j];
    }
  }
#pragma GCC unroll 8
  for (int chain = 1; chain < Chains; ++chain) {
#pragma GCC unroll 8
    for (int i = 0; i < Rows; ++i)
#pragma omp simd
      for (int j = 0; j < Columns; ++j) total[0][i][j] += total[chain][i][j];
  }
#pragma GCC unroll 8
  for (int i = 0; i < Rows; ++i) {
    T* to = c + i * p.c_row;
    if (p.accumulate) {
#pragma omp simd
      for (int j = 0; j < Columns; ++j) to[j] += total[0][i][j];
    } else {
#pragma omp simd
      for (int j = 0; j < Columns; ++j) to[j] = total[0][i][j];
    }
  }
}

template <int Columns, class T>
MOLT_INLINE void multiply_panel(const Product<T>& p, const T* b, T* c) {
  constexpr int few = Columns == kPanel<T> ? 2 : 4;
  std::int64_t i = 0;
  for (; i + 6 <= p.rows; i += 6) multiply_block<6, Columns, 1>(p, p.a + i * p.a_row, b, c + i * p.c_row);
  for (; i + 2 <= p.rows; i += 2) multiply_block<2, Columns, few>(p, p.a + i * p.a_row, b, c + i * p.c_row);
  if (i < p.rows) multiply_block<1, Columns, few>(p, p.a + i * p.a_row, b, c + i * p.c_row);
}

template <class T>
MOLT_INLINE void multiply_all(const Product<T>& p) {
  const T* b = p.b;
  std::int64_t j = 0;
  for (; j + kPanel<T> <= p.columns; j += kPanel<T>, b += p.b_panel) multiply_panel<kPanel<T>>(p, b, p.c + j);
  if (j < p.columns) multiply_panel<kLanes<T>>(p, b, p.c + j);
}

MOLT_CLONES void run(const Product<float>& product) {
  multiply_all(product);
}
MOLT_CLONES void run(const Product<double>& product) {
  multiply_all(product);
}

}  // namespace attention_tile

void multiply(const Product<float>& product) {
  attention_tile::run(product);
}
void multiply(const Product<double>& product) {
  attention_tile::run(product);
}

}  // namespace molt::ops
