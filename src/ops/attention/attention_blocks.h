// What the forward and the backward kernel share: work shared out over threads, operands packed for the tiles.
#pragma once
#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "ops/attention/attention_cpu.h"
#include "ops/attention/tile.h"

namespace molt::ops::attention_blocks {

inline constexpr std::int64_t kKeys = 128;  // keys of a block
inline constexpr std::int64_t kStrip = 6;   // query rows that go through a block together: the rows of a tile

inline std::int64_t round_up(std::int64_t value, std::int64_t unit) {
  return (value + unit - 1) / unit * unit;
}

// Calls body(task, workspace) for each task, each by the next free thread: tasks write to separate places, so which thread takes
// which makes no difference to the result. `make` builds a thread's workspace.
template <class Make, class Body>
void share_out(std::int64_t tasks, const Make& make, const Body& body) {
  std::atomic<std::int64_t> next{0};
  const std::int64_t threads = std::min<std::int64_t>(tasks, at::get_num_threads());
  at::parallel_for(0, threads, 1, [&](std::int64_t, std::int64_t) {
    auto workspace = make();
    for (std::int64_t task = next++; task < tasks; task = next++) body(task, workspace);
  });
}

// The columns of a block of scores that a strip of queries can see, and the same widened to whole panels. Positions relative to
// the block's first key.
struct Columns {
  std::int64_t begin, end, panel_begin, panel_end;
  bool empty() const { return begin >= end; }
};

// Queries at positions first … last seen from a block of `count` keys that begins at position `key`.
template <class T>
MOLT_INLINE Columns columns_seen(std::int64_t first, std::int64_t last, std::int64_t key, std::int64_t count,
                                 std::int64_t window) {
  const std::int64_t begin = std::max<std::int64_t>(0, first - (window - 1) - key);
  const std::int64_t end = std::min(count, last + 1 - key);
  return {begin, end, begin / kPanel<T> * kPanel<T>, round_up(std::max<std::int64_t>(end, 0), kPanel<T>)};
}

// A block of keys (or values) as the right operand of a product with its transpose: panels (head_size, kPanel), zeros beyond
// `count`.
template <class T>
MOLT_INLINE void pack_transposed(const ContextRows<T>& from, std::int64_t key, std::int64_t count, std::int64_t head,
                                 std::int64_t head_size, T* to) {
  for (std::int64_t j = 0; j < round_up(count, kPanel<T>); ++j) {
    T* column = to + j / kPanel<T> * kPanel<T> * head_size + j % kPanel<T>;
    if (j < count) {
      const T* row = from.at(key + j, head);
      for (std::int64_t d = 0; d < head_size; ++d) column[d * kPanel<T>] = row[d * from.value_stride()];
    } else {
      for (std::int64_t d = 0; d < head_size; ++d) column[d * kPanel<T>] = 0;
    }
  }
}

// One row as it is, times a factor, with zeros up to whole vectors.
template <class T>
MOLT_INLINE void pack_row(const T* from, std::int64_t head_size, T factor, T* to) {
  for (std::int64_t d = 0; d < head_size; d += kLanes<T>) store(to + d, load(from + d, head_size - d) * factor);
}

// A block of values as rows of `width`, which is head_size in whole vectors.
template <class T>
MOLT_INLINE void pack_rows(const ContextRows<T>& from, std::int64_t key, std::int64_t count, std::int64_t head,
                           std::int64_t head_size, std::int64_t width, T* to) {
  for (std::int64_t j = 0; j < count; ++j, to += width) {
    const T* row = from.at(key + j, head);
    if (from.value_stride() == 1) {
      pack_row(row, head_size, T(1), to);
    } else {
      for (std::int64_t d = 0; d < width; ++d) to[d] = d < head_size ? row[d * from.value_stride()] : T(0);
    }
  }
}

// scores (rows, columns of the strip): queries (rows, head_size) times packed keys.
template <class T>
MOLT_INLINE void multiply_panels(std::int64_t rows, const Columns& columns, const T* queries, std::int64_t query_stride,
                                 std::int64_t head_size, const T* panels, T* scores, std::int64_t scores_stride) {
  multiply(Product<T>{.rows = rows,
                      .columns = columns.panel_end - columns.panel_begin,
                      .depth = head_size,
                      .a = queries,
                      .a_row = query_stride,
                      .a_depth = 1,
                      .b = panels + columns.panel_begin * head_size,
                      .b_depth = kPanel<T>,
                      .b_panel = kPanel<T> * head_size,
                      .c = scores + columns.panel_begin,
                      .c_row = scores_stride,
                      .accumulate = false});
}

}  // namespace molt::ops::attention_blocks
