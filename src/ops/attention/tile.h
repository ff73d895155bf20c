// Small matrix products for the attention kernels: operands that stay in the caches, shapes known only when it runs.
#pragma once
#include <cstdint>

#include "ops/lanes.h"

namespace molt::ops {

// Columns that are worked on together; operands packed in panels hold this many columns side by side.
template <class T>
constexpr std::int64_t kPanel = 2 * kLanes<T>;

// c[i][j] (+)= sum over d < depth of a[i * a_row + d * a_depth] * b[d * b_depth + j / panel * b_panel + j % panel].
// A row-major b has b_panel = kPanel. columns is a multiple of the vector length, and b's last panel is read that far.
template <class T>
struct Product {
  std::int64_t rows, columns, depth;
  const T* a;
  std::int64_t a_row, a_depth;
  const T* b;
  std::int64_t b_depth, b_panel;
  T* c;
  std::int64_t c_row;
  bool accumulate;
};

void multiply(const Product<float>& product);
void multiply(const Product<double>& product);

}  // namespace molt::ops
