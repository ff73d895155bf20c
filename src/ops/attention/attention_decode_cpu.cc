#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "ops/attention/attention_cpu.h"
#include "ops/attention/tile.h"

namespace molt::ops {

namespace attention_decode {

// One query of all heads that share a key head, over positions begin … end of its sequence.
struct Task {
  std::int64_t span, query, kv_head, begin, end;
};

// How many positions from `at` have rows a fixed stride apart: all, or what is left of a cache block.
template <class T>
MOLT_INLINE std::int64_t stretch(const ContextRows<T>& context, std::int64_t at, std::int64_t end) {
  return context.blocks ? std::min(end - at, context.block_size - at % context.block_size) : end - at;
}

// Scores of a vector of keys against one query: keys(r) is the r-th key.
template <class T, class Keys>
MOLT_INLINE Lanes<T> score_vector(const T* query, const Keys& keys, std::int64_t head_size) {
  constexpr int lanes = kLanes<T>;
  Lanes<T> parts[lanes];
#pragma GCC unroll 8
  for (int r = 0; r < lanes; ++r) parts[r] = Lanes<T>{};
  for (std::int64_t d = 0; d < head_size; d += lanes) {
    const Lanes<T> q = load(query + d);
#pragma GCC unroll 8
    for (int r = 0; r < lanes; ++r) parts[r] += q * load(keys(r) + d);
  }
  return sums(parts);
}

// Scores of `count` keys against the `group` queries (rows `query_stride` apart) that share them, a vector of keys at a time;
// writes up to a vector beyond them.
template <class T>
MOLT_INLINE void score(const T* queries, std::int64_t query_stride, std::int64_t group, const T* keys, std::int64_t stride,
                       std::int64_t count, std::int64_t head_size, T scale, T* scores, std::int64_t scores_stride) {
  constexpr int lanes = kLanes<T>;
  std::int64_t j = 0;
  // Plain additions find the rows: clamping them as the end needs would cost more than short heads' products.
  for (; j + lanes <= count; j += lanes) {
    const T* first = keys + j * stride;
    for (std::int64_t g = 0; g < group; ++g)
      store(scores + g * scores_stride + j,
            Lanes<T>(score_vector(queries + g * query_stride, [&](int r) { return first + r * stride; }, head_size) * scale));
  }
  if (j == count) return;
  const auto clamped = [&](int r) { return keys + std::min(j + r, count - 1) * stride; };
  for (std::int64_t g = 0; g < group; ++g)
    store(scores + g * scores_stride + j, Lanes<T>(score_vector(queries + g * query_stride, clamped, head_size) * scale));
}

// The scores (in units of log 2) become exponentials; returns their sum. Zeros follow them up to a whole vector.
template <class T>
MOLT_INLINE T exponentials(T* scores, std::int64_t count) {
  constexpr int lanes = kLanes<T>;
  const std::int64_t end = padded<T>(count);
  std::fill(scores + count, scores + end, -std::numeric_limits<T>::infinity());
  Lanes<T> largest = load(scores);
  for (std::int64_t j = lanes; j < end; j += lanes) largest = larger(largest, load(scores + j));
  T maximum = largest[0];
  for (int i = 1; i < lanes; ++i) maximum = std::max(maximum, largest[i]);
  Lanes<T> total = {};
  for (std::int64_t j = 0; j < end; j += lanes) {
    const Lanes<T> value = exp2_in_range(larger(Lanes<T>{} - 126, Lanes<T>(load(scores + j) - maximum)));
    store(scores + j, value);
    total += value;
  }
  return sum(total);
}

// `scores` has room for scores_stride + 1 numbers a query: its scores, and behind those of all queries the sums.
template <class T>
MOLT_INLINE void attend(const AttentionForward<T>& work, const Task& task, T* scores, std::int64_t scores_stride) {
  const AttentionShape& shape = work.shape;
  const QuerySpan<T>& span = work.spans[task.span];
  const std::int64_t group = shape.group(), head = task.kv_head * group, token = span.first + task.query;
  const T scale = static_cast<T>(shape.scale * M_LOG2E);
  for (std::int64_t at = task.begin, count; at < task.end; at += count) {
    count = stretch(span.keys, at, task.end);
    score(work.q.at(token, head), work.q.head, group, span.keys.at(at, task.kv_head), span.keys.rows.token, count,
          shape.head_size, scale, scores + at - task.begin, scores_stride);
  }
  T* totals = scores + group * scores_stride;
  for (std::int64_t g = 0; g < group; ++g) totals[g] = exponentials(scores + g * scores_stride, task.end - task.begin);
  for (std::int64_t at = task.begin, count; at < task.end; at += count) {
    count = stretch(span.values, at, task.end);
    multiply(Product<T>{.rows = group,
                        .columns = shape.head_size,
                        .depth = count,
                        .a = scores + at - task.begin,
                        .a_row = scores_stride,
                        .a_depth = 1,
                        .b = span.values.at(at, task.kv_head),
                        .b_depth = span.values.rows.token,
                        .b_panel = kPanel<T>,
                        .c = work.out.at(token, head),
                        .c_row = work.out.head,
                        .accumulate = at != task.begin});
  }
  for (std::int64_t g = 0; g < group; ++g) {
    T* row = work.out.at(token, head + g);
    const T inverse = T(1) / totals[g];
    for (std::int64_t d = 0; d < shape.head_size; d += kLanes<T>) store(row + d, Lanes<T>(load(row + d) * inverse));
  }
}

MOLT_CLONES void run(const AttentionForward<float>& work, const Task& task, float* scores, std::int64_t scores_stride) {
  attend(work, task, scores, scores_stride);
}
MOLT_CLONES void run(const AttentionForward<double>& work, const Task& task, double* scores, std::int64_t scores_stride) {
  attend(work, task, scores, scores_stride);
}

template <class T>
void decode(const AttentionForward<T>& work) {
  const AttentionShape& shape = work.shape;
  std::vector<Task> tasks;
  std::int64_t longest = 0, keys = 0;
  for (std::int64_t span = 0; span < static_cast<std::int64_t>(work.spans.size()); ++span)
    for (std::int64_t query = 0; query < work.spans[span].count; ++query) {
      const std::int64_t end = work.spans[span].context + query + 1, begin = std::max<std::int64_t>(0, end - shape.window);
      longest = std::max(longest, end - begin);
      keys += end - begin;
      for (std::int64_t kv_head = 0; kv_head < shape.kv_heads; ++kv_head) tasks.push_back({span, query, kv_head, begin, end});
    }
  if (tasks.empty()) return;
  // Waking a thread costs some microseconds: as much as 64k multiplications.
  const std::int64_t count = tasks.size(), each = std::max<std::int64_t>(1, keys * shape.heads * shape.head_size / count);
  const std::int64_t stride = padded<T>(longest) + kLanes<T>;
  at::parallel_for(0, count, std::max<std::int64_t>(1, 65536 / each), [&](std::int64_t begin, std::int64_t end) {
    const std::unique_ptr<T[]> scores(new T[shape.group() * (stride + 1)]);
    for (std::int64_t task = begin; task < end; ++task) run(work, tasks[task], scores.get(), stride);
  });
}

}  // namespace attention_decode

void attention_decode_cpu(const AttentionForward<float>& work) {
  attention_decode::decode(work);
}
void attention_decode_cpu(const AttentionForward<double>& work) {
  attention_decode::decode(work);
}

}  // namespace molt::ops
