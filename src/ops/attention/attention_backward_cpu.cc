#include <cmath>
#include <memory>

#include "ops/attention/attention_blocks.h"
#include "ops/attention/attention_cpu.h"

namespace molt::ops {

namespace attention_backward {

using namespace attention_blocks;

// With P the softmax of S = scale * Q K^T and O = P V: dV = P^T dO, dP = dO V^T, dS = P * (dP - rowsum(dO * O)), dQ = scale * dS
// K, dK = scale * dS^T Q (Dao et al. 2022, appendix B). P is computed again from the scores and their log-sum-exp, block by
// block. A task is all queries and keys of one key head of one sequence, so threads never add to the same place.

inline constexpr std::int64_t kQueries = 8 * kStrip;  // queries whose P and dS are kept for the products that sum over queries

struct Task {
  std::int64_t span, kv_head;
};

template <class T>
struct Workspace {
  std::int64_t width;                                       // head_size in whole vectors
  std::unique_ptr<T[]> keys, keys_columns, values_columns;  // a block of keys: as rows, transposed; its values transposed
  std::unique_ptr<T[]> key_sums, value_sums;                // (kKeys, width) dK and dV of the block
  std::unique_ptr<T[]> queries, gradients;                  // (kQueries, width) scale * Q, and dO
  std::unique_ptr<T[]> weights, slopes;                     // (kQueries, kKeys) P and dS
  std::unique_ptr<T[]> query_sums;                          // (kStrip, width)
  std::unique_ptr<T[]> along;                               // (group, tokens of the sequence) rowsum(dO * O)

  Workspace(const AttentionShape& shape, std::int64_t longest) : width(padded<T>(shape.head_size)) {
    keys.reset(new T[kKeys * width]);
    keys_columns.reset(new T[kKeys * shape.head_size]);
    values_columns.reset(new T[kKeys * shape.head_size]);
    key_sums.reset(new T[kKeys * width]);
    value_sums.reset(new T[kKeys * width]);
    queries.reset(new T[kQueries * width]);
    gradients.reset(new T[kQueries * width]);
    weights.reset(new T[kQueries * kKeys]);
    slopes.reset(new T[kQueries * kKeys]);
    query_sums.reset(new T[kStrip * width]);
    along.reset(new T[shape.group() * longest]);
  }
};

// A block of keys and a block of queries of one head that see some of them. Positions are places in the sequence.
struct Block {
  std::int64_t head, group, key, keys, query, queries;
  Columns columns;  // seen by any of the queries
};

// Sets what a query does not see to 0, outside begin … end of the block's columns.
template <class T>
MOLT_INLINE void clear_outside(T* row, const Columns& block, std::int64_t begin, std::int64_t end) {
  std::fill(row + block.panel_begin, row + begin, T(0));
  std::fill(row + end, row + block.panel_end, T(0));
}

// P and dS of one row from its scores and dP, in place.
template <class T>
MOLT_INLINE void weights_and_slopes(T* weights, T* slopes, const Columns& columns, T logsumexp, T along) {
  const T shift = logsumexp * static_cast<T>(M_LOG2E);
  for (std::int64_t j = columns.panel_begin; j < columns.panel_end; j += kLanes<T>) {
    const Lanes<T> weight = exp2_not_positive(Lanes<T>(load(weights + j) * static_cast<T>(M_LOG2E) - shift));
    store(weights + j, weight);
    store(slopes + j, weight * (load(slopes + j) - along));
  }
}

// P and dS of a strip of queries (rows `strip` … of the block), and its part of dQ.
template <class T>
MOLT_INLINE void work_on_strip(const AttentionBackward<T>& work, const QuerySpan<T>& span, const Block& block, std::int64_t strip,
                               Workspace<T>& space) {
  const AttentionShape& shape = work.shape;
  const std::int64_t rows = std::min(kStrip, block.queries - strip), first = block.query + strip;
  const Columns columns = columns_seen<T>(first, first + rows - 1, block.key, block.keys, shape.window);
  T *weights = space.weights.get() + strip * kKeys, *slopes = space.slopes.get() + strip * kKeys;
  if (columns.empty()) {
    for (std::int64_t i = 0; i < rows; ++i) {
      clear_outside(weights + i * kKeys, block.columns, block.columns.panel_begin, block.columns.panel_begin);
      clear_outside(slopes + i * kKeys, block.columns, block.columns.panel_begin, block.columns.panel_begin);
    }
    return;
  }
  multiply_panels(rows, columns, space.queries.get() + strip * space.width, space.width, shape.head_size,
                  space.keys_columns.get(), weights, kKeys);
  multiply_panels(rows, columns, space.gradients.get() + strip * space.width, space.width, shape.head_size,
                  space.values_columns.get(), slopes, kKeys);
  for (std::int64_t i = 0; i < rows; ++i) {
    const Columns own = columns_seen<T>(first + i, first + i, block.key, block.keys, shape.window);
    const std::int64_t end = std::max(own.end, block.columns.panel_begin);
    const std::int64_t begin = std::min(std::max(own.begin, block.columns.panel_begin), end);
    weights_and_slopes(weights + i * kKeys, slopes + i * kKeys, columns,
                       work.logsumexp[block.head * work.tokens + span.first + first + i],
                       space.along[block.group * span.count + first + i]);
    clear_outside(weights + i * kKeys, block.columns, begin, end);
    clear_outside(slopes + i * kKeys, block.columns, begin, end);
  }
  multiply(Product<T>{.rows = rows,
                      .columns = space.width,
                      .depth = columns.end - columns.panel_begin,
                      .a = slopes + columns.panel_begin,
                      .a_row = kKeys,
                      .a_depth = 1,
                      .b = space.keys.get() + columns.panel_begin * space.width,
                      .b_depth = space.width,
                      .b_panel = kPanel<T>,
                      .c = space.query_sums.get(),
                      .c_row = space.width,
                      .accumulate = false});
  const T scale = static_cast<T>(shape.scale);
  for (std::int64_t i = 0; i < rows; ++i) {
    T* to = work.dq.at(span.first + first + i, block.head);
    const T* sums = space.query_sums.get() + i * space.width;
    for (std::int64_t d = 0; d < shape.head_size; d += kLanes<T>)
      store(to + d, load(to + d, shape.head_size - d) + load(sums + d) * scale, shape.head_size - d);
  }
}

// The block's part of dK or dV: weights^T times rows, over the queries that see each strip of keys.
template <class T>
MOLT_INLINE void add_over_queries(const Block& block, std::int64_t window, const T* weights, const T* rows, std::int64_t width,
                                  T* sums) {
  for (std::int64_t j = block.columns.panel_begin; j < block.columns.end; j += kStrip) {
    const std::int64_t count = std::min(kStrip, block.columns.end - j), key = block.key + j;
    const std::int64_t begin = std::max<std::int64_t>(0, key - block.query);
    const std::int64_t end = std::min(block.queries, key + count - 1 + window - block.query);
    if (begin >= end) continue;
    multiply(Product<T>{.rows = count,
                        .columns = width,
                        .depth = end - begin,
                        .a = weights + begin * kKeys + j,
                        .a_row = 1,
                        .a_depth = kKeys,
                        .b = rows + begin * width,
                        .b_depth = width,
                        .b_panel = kPanel<T>,
                        .c = sums + j * width,
                        .c_row = width,
                        .accumulate = true});
  }
}

template <class T>
MOLT_INLINE void work_on_block(const AttentionBackward<T>& work, const QuerySpan<T>& span, const Block& block,
                               Workspace<T>& space) {
  const std::int64_t head_size = work.shape.head_size;
  for (std::int64_t i = 0; i < block.queries; ++i) {
    const std::int64_t token = span.first + block.query + i;
    pack_row(work.q.at(token, block.head), head_size, static_cast<T>(work.shape.scale), space.queries.get() + i * space.width);
    pack_row(work.gradient.at(token, block.head), head_size, T(1), space.gradients.get() + i * space.width);
  }
  for (std::int64_t strip = 0; strip < block.queries; strip += kStrip) work_on_strip(work, span, block, strip, space);
  add_over_queries(block, work.shape.window, space.weights.get(), space.gradients.get(), space.width, space.value_sums.get());
  add_over_queries(block, work.shape.window, space.slopes.get(), space.queries.get(), space.width, space.key_sums.get());
}

// rowsum(dO * O), and dQ set to 0.
template <class T>
MOLT_INLINE void prepare_queries(const AttentionBackward<T>& work, const QuerySpan<T>& span, std::int64_t kv_head,
                                 Workspace<T>& space) {
  const std::int64_t group = work.shape.group(), head_size = work.shape.head_size;
  for (std::int64_t g = 0; g < group; ++g)
    for (std::int64_t i = 0; i < span.count; ++i) {
      const std::int64_t token = span.first + i, head = kv_head * group + g;
      const T *out = work.out.at(token, head), *gradient = work.gradient.at(token, head);
      Lanes<T> products = {};
      for (std::int64_t d = 0; d < head_size; d += kLanes<T>)
        products += load(out + d, head_size - d) * load(gradient + d, head_size - d);
      space.along[g * span.count + i] = sum(products);
      std::fill_n(work.dq.at(token, head), head_size, T(0));
    }
}

template <class T>
MOLT_INLINE void differentiate(const AttentionBackward<T>& work, const Task& task, Workspace<T>& space) {
  const AttentionShape& shape = work.shape;
  const QuerySpan<T>& span = work.spans[task.span];
  prepare_queries(work, span, task.kv_head, space);
  for (std::int64_t key = 0; key < span.count; key += kKeys) {
    const std::int64_t keys = std::min(kKeys, span.count - key);
    pack_transposed(span.keys, key, keys, task.kv_head, shape.head_size, space.keys_columns.get());
    pack_transposed(span.values, key, keys, task.kv_head, shape.head_size, space.values_columns.get());
    for (std::int64_t j = 0; j < keys; ++j)
      pack_row(span.keys.at(key + j, task.kv_head), shape.head_size, T(1), space.keys.get() + j * space.width);
    std::fill_n(space.key_sums.get(), keys * space.width, T(0));
    std::fill_n(space.value_sums.get(), keys * space.width, T(0));

    const std::int64_t last = std::min(span.count, key + keys - 1 + shape.window);
    for (std::int64_t g = 0; g < shape.group(); ++g)
      for (std::int64_t query = key; query < last; query += kQueries) {
        const std::int64_t queries = std::min(kQueries, last - query);
        const Columns columns = columns_seen<T>(query, query + queries - 1, key, keys, shape.window);
        work_on_block(work, span, Block{task.kv_head * shape.group() + g, g, key, keys, query, queries, columns}, space);
      }
    for (std::int64_t j = 0; j < keys; ++j) {
      T *dk = work.dk.at(span.first + key + j, task.kv_head), *dv = work.dv.at(span.first + key + j, task.kv_head);
      std::copy_n(space.key_sums.get() + j * space.width, shape.head_size, dk);
      std::copy_n(space.value_sums.get() + j * space.width, shape.head_size, dv);
    }
  }
}

MOLT_CLONES void run(const AttentionBackward<float>& work, const Task& task, Workspace<float>& space) {
  differentiate(work, task, space);
}
MOLT_CLONES void run(const AttentionBackward<double>& work, const Task& task, Workspace<double>& space) {
  differentiate(work, task, space);
}

template <class T>
void backward(const AttentionBackward<T>& work) {
  std::vector<Task> tasks;
  std::int64_t longest = 0;
  for (std::int64_t span = 0; span < static_cast<std::int64_t>(work.spans.size()); ++span) {
    longest = std::max(longest, work.spans[span].count);
    for (std::int64_t kv_head = 0; kv_head < work.shape.kv_heads; ++kv_head)
      if (work.spans[span].count > 0) tasks.push_back({span, kv_head});
  }
  // The longest sequences first, so that no thread is left with one at the end.
  std::stable_sort(tasks.begin(), tasks.end(),
                   [&](const Task& a, const Task& b) { return work.spans[a.span].count > work.spans[b.span].count; });
  share_out(
      tasks.size(), [&] { return Workspace<T>(work.shape, longest); },
      [&](std::int64_t task, Workspace<T>& space) { run(work, tasks[task], space); });
}

}  // namespace attention_backward

void attention_backward_cpu(const AttentionBackward<float>& work) {
  attention_backward::backward(work);
}
void attention_backward_cpu(const AttentionBackward<double>& work) {
  attention_backward::backward(work);
}

}  // namespace molt::ops
