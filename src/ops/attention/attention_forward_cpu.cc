#include <cmath>
#include <memory>

#include "ops/attention/attention_blocks.h"
#include "ops/attention/attention_cpu.h"

namespace molt::ops {

namespace attention_forward {

using namespace attention_blocks;

// Queries of one sequence that one thread takes, with all heads that share a key head.
struct Task {
  std::int64_t span, kv_head, first, count;
};

template <class T>
struct Workspace {
  std::int64_t rows, width;             // queries of a task times heads of a group; head_size in whole vectors
  std::unique_ptr<T[]> keys, values;    // a block: transposed in panels; rows of `width`
  std::unique_ptr<T[]> scores;          // (kStrip, kKeys)
  std::unique_ptr<T[]> sums;            // (rows, width): weighted values so far
  std::unique_ptr<T[]> maxima, totals;  // (rows) of the scores seen so far, in units of log 2; of their exponentials

  Workspace(const AttentionShape& shape, std::int64_t queries)
      : rows(queries * shape.group()), width(padded<T>(shape.head_size)) {
    keys.reset(new T[kKeys * shape.head_size]);
    values.reset(new T[kKeys * width]);
    scores.reset(new T[kStrip * kKeys]);
    sums.reset(new T[rows * width]);
    maxima.reset(new T[rows]);
    totals.reset(new T[rows]);
  }
};

// Turns a row of scores into exponentials relative to the largest so far and brings what was summed before to the same scale.
// Columns begin … end of the row's panels are seen by this query, the others become 0.
template <class T>
MOLT_INLINE void softmax_row(T* scores, const Columns& columns, std::int64_t begin, std::int64_t end, T scale, T& maximum,
                             T& total, T* sums, std::int64_t width) {
  constexpr T lowest = -std::numeric_limits<T>::infinity();
  std::fill(scores + columns.panel_begin, scores + begin, lowest);
  std::fill(scores + end, scores + columns.panel_end, lowest);
  Lanes<T> largest = load(scores + columns.panel_begin);
  for (std::int64_t j = columns.panel_begin + kLanes<T>; j < columns.panel_end; j += kLanes<T>)
    largest = larger(largest, load(scores + j));
  T now = maximum;
  for (int i = 0; i < kLanes<T>; ++i) now = std::max(now, largest[i] * scale);
  Lanes<T> added = {};
  for (std::int64_t j = columns.panel_begin; j < columns.panel_end; j += kLanes<T>) {
    const Lanes<T> value = exp2_not_positive(Lanes<T>(load(scores + j) * scale - now));
    store(scores + j, value);
    added += value;
  }
  std::fill(scores + columns.panel_begin, scores + begin, T(0));
  std::fill(scores + end, scores + columns.panel_end, T(0));
  if (now != maximum && total != 0) {
    const T shrink = std::exp2(maximum - now);
    total *= shrink;
    for (std::int64_t d = 0; d < width; d += kLanes<T>) store(sums + d, load(sums + d) * shrink);
  }
  maximum = now;
  total += sum(added);
}

template <class T>
MOLT_INLINE void attend_block(const AttentionForward<T>& work, const Task& task, std::int64_t key, std::int64_t count,
                              Workspace<T>& space) {
  const AttentionShape& shape = work.shape;
  const QuerySpan<T>& span = work.spans[task.span];
  const T scale = static_cast<T>(shape.scale * M_LOG2E);
  pack_transposed(span.keys, key, count, task.kv_head, shape.head_size, space.keys.get());
  pack_rows(span.values, key, count, task.kv_head, shape.head_size, space.width, space.values.get());

  for (std::int64_t g = 0; g < shape.group(); ++g) {
    for (std::int64_t strip = 0; strip < task.count; strip += kStrip) {
      const std::int64_t rows = std::min(kStrip, task.count - strip), first = span.context + task.first + strip;
      const Columns columns = columns_seen<T>(first, first + rows - 1, key, count, shape.window);
      if (columns.empty()) continue;
      const std::int64_t row = g * task.count + strip;
      T *scores = space.scores.get(), *sums = space.sums.get() + row * space.width;
      const T* queries = work.q.at(span.first + task.first + strip, task.kv_head * shape.group() + g);
      multiply_panels(rows, columns, queries, work.q.token, shape.head_size, space.keys.get(), scores, kKeys);
      for (std::int64_t i = 0; i < rows; ++i) {
        const Columns own = columns_seen<T>(first + i, first + i, key, count, shape.window);
        const std::int64_t end = std::max<std::int64_t>(own.end, columns.panel_begin);
        const std::int64_t begin = std::min(std::max(own.begin, columns.panel_begin), end);
        if (begin == end)
          std::fill(scores + i * kKeys + columns.panel_begin, scores + i * kKeys + columns.panel_end, T(0));
        else
          softmax_row(scores + i * kKeys, columns, begin, end, scale, space.maxima[row + i], space.totals[row + i],
                      sums + i * space.width, space.width);
      }
      multiply(Product<T>{.rows = rows,
                          .columns = space.width,
                          .depth = columns.end - columns.panel_begin,
                          .a = scores + columns.panel_begin,
                          .a_row = kKeys,
                          .a_depth = 1,
                          .b = space.values.get() + columns.panel_begin * space.width,
                          .b_depth = space.width,
                          .b_panel = kPanel<T>,
                          .c = sums,
                          .c_row = space.width,
                          .accumulate = true});
    }
  }
}

template <class T>
MOLT_INLINE void attend(const AttentionForward<T>& work, const Task& task, Workspace<T>& space) {
  const AttentionShape& shape = work.shape;
  const QuerySpan<T>& span = work.spans[task.span];
  const std::int64_t rows = task.count * shape.group();
  std::fill_n(space.sums.get(), rows * space.width, T(0));
  std::fill_n(space.maxima.get(), rows, -std::numeric_limits<T>::infinity());
  std::fill_n(space.totals.get(), rows, T(0));

  const std::int64_t position = span.context + task.first, end = position + task.count;
  for (std::int64_t key = std::max<std::int64_t>(0, position - (shape.window - 1)); key < end; key += kKeys)
    attend_block(work, task, key, std::min(kKeys, end - key), space);

  for (std::int64_t g = 0; g < shape.group(); ++g) {
    const std::int64_t head = task.kv_head * shape.group() + g;
    for (std::int64_t i = 0; i < task.count; ++i) {
      const std::int64_t token = span.first + task.first + i, row = g * task.count + i;
      const T inverse = T(1) / space.totals[row], *sums = space.sums.get() + row * space.width;
      T* out = work.out.at(token, head);
      for (std::int64_t d = 0; d < shape.head_size; d += kLanes<T>) store(out + d, load(sums + d) * inverse, shape.head_size - d);
      if (work.logsumexp)
        work.logsumexp[head * work.tokens + token] = (space.maxima[row] + std::log2(space.totals[row])) * static_cast<T>(M_LN2);
    }
  }
}

MOLT_CLONES void run(const AttentionForward<float>& work, const Task& task, Workspace<float>& space) {
  attend(work, task, space);
}
MOLT_CLONES void run(const AttentionForward<double>& work, const Task& task, Workspace<double>& space) {
  attend(work, task, space);
}

template <class T>
void forward(const AttentionForward<T>& work) {
  const AttentionShape& shape = work.shape;
  // A task's sums stay within a quarter of a MB, and a key block is packed for many rows.
  const std::int64_t most =
      std::clamp<std::int64_t>(32768 / (shape.group() * padded<T>(shape.head_size)), kStrip, 192) / kStrip * kStrip;
  std::vector<Task> tasks;
  std::int64_t longest = 0;
  for (std::int64_t span = 0; span < static_cast<std::int64_t>(work.spans.size()); ++span)
    for (std::int64_t kv_head = 0; kv_head < shape.kv_heads; ++kv_head)
      for (std::int64_t first = 0; first < work.spans[span].count; first += most) {
        tasks.push_back({span, kv_head, first, std::min(most, work.spans[span].count - first)});
        longest = std::max(longest, tasks.back().count);
      }
  // The dearest first, so that no thread is left with one at the end.
  const auto keys = [&](const Task& task) { return task.count * (work.spans[task.span].context + task.first + task.count); };
  std::stable_sort(tasks.begin(), tasks.end(), [&](const Task& a, const Task& b) { return keys(a) > keys(b); });
  share_out(
      tasks.size(), [&] { return Workspace<T>(shape, longest); },
      [&](std::int64_t task, Workspace<T>& space) { run(work, tasks[task], space); });
}

}  // namespace attention_forward

void attention_forward_cpu(const AttentionForward<float>& work) {
  attention_forward::forward(work);
}
void attention_forward_cpu(const AttentionForward<double>& work) {
  attention_forward::forward(work);
}

}  // namespace molt::ops
