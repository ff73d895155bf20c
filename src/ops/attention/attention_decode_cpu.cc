// Attention of a few new tokens over a cache in tiles. Both products run along positions, which lie beside each other, so heads
// of any size fill the vectors: scores of many keys at once, and sums of weighted values that are added across lanes at the end.
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "ops/attention/attention_cpu.h"
#include "ops/lanes.h"
#include "ops/scratch.h"

namespace molt::ops {

namespace attention_decode {

template <class ScalarType, int kVectorBytes>
struct Form {
  using Scalar = ScalarType;
  using Vector = Lanes<Scalar, kVectorBytes>;
  static constexpr int kBytes = kVectorBytes, kCount = kLanes<Scalar, kBytes>;
};

// One query of all heads that share a key head, over positions begin … end of its sequence.
struct Task {
  std::int64_t span, query, kv_head, begin, end;
};

// The keys or the values that a task reads, and those of the next one, of which `next_end` positions. Of those the first `early`
// values of each position are asked for before this one's are read.
template <class T>
struct Stream {
  const ContextRows<T>&context, &next;
  std::int64_t head, next_head, next_end, early;
};

// Tiles that follow each other a fixed stride apart: `count` positions. `soon`: what to ask for meanwhile, in the same places.
template <class T>
struct Run {
  const T *rows, *soon;
  std::int64_t count;
};

// From position `at`, which begins a tile, to `end` or to the end of a cache block. (Not a loop with a function for its body: GCC
// inlines no lambda into target clones.)
template <class T>
MOLT_INLINE Run<T> run_from(const Stream<T>& stream, std::int64_t at, std::int64_t end) {
  const ContextRows<T>& context = stream.context;
  const std::int64_t left = context.blocks ? context.block_size - at % context.block_size : end;
  const T* rows = context.at(at, stream.head);
  constexpr std::int64_t further = 4 * kTile;
  const T* soon = at < stream.next_end ? stream.next.at(at, stream.next_head) : rows + further * context.rows.token;
  return {rows, soon, std::min(end - at, left)};
}

MOLT_INLINE void ask_for(const void* soon) {
  __builtin_prefetch(soon);
}

// Where the vector of positions j … of a run lies.
template <class T>
MOLT_INLINE const T* vector_at(const T* rows, std::int64_t stride, std::int64_t j) {
  return rows + j / kTile * stride + j % kTile;
}

// Scores of kVectors vectors of keys against kQueries queries. Plain loops on purpose: GCC 12 builds a broadcast of its own
// vector types element by element inside target clones.
template <class F, int kQueries, int kVectors, class T = typename F::Scalar>
MOLT_INLINE void score_block(const T* queries, std::int64_t query_stride, const T* keys, std::int64_t stride, std::int64_t j,
                             const T* soon, std::int64_t head_size, T scale, T* scores, std::int64_t scores_stride) {
  const T *from[kVectors], *next[kVectors];
  T total[kQueries][kVectors][F::kCount];
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    from[v] = vector_at(keys, stride, j + v * F::kCount);
    next[v] = vector_at(soon, stride, j + v * F::kCount);
#pragma GCC unroll 2
    for (int g = 0; g < kQueries; ++g)
#pragma omp simd
      for (int i = 0; i < F::kCount; ++i) total[g][v][i] = 0;
  }
  for (std::int64_t d = 0; d < head_size; ++d) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) ask_for(next[v] + d * kTile);
#pragma GCC unroll 2
    for (int g = 0; g < kQueries; ++g) {
      const T q = queries[g * query_stride + d];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v)
#pragma omp simd
        for (int i = 0; i < F::kCount; ++i) total[g][v][i] += q * from[v][d * kTile + i];
    }
  }
#pragma GCC unroll 2
  for (int g = 0; g < kQueries; ++g)
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v)
#pragma omp simd
      for (int i = 0; i < F::kCount; ++i) scores[g * scores_stride + j + v * F::kCount + i] = total[g][v][i] * scale;
}

// Scores of `count` keys, in whole vectors.
template <class F, int kQueries, class T = typename F::Scalar>
MOLT_INLINE void score(const T* queries, std::int64_t query_stride, const T* keys, std::int64_t stride, std::int64_t count,
                       const T* soon, std::int64_t head_size, T scale, T* scores, std::int64_t scores_stride) {
  constexpr int together = 4;
  std::int64_t j = 0;
  for (; j + together * F::kCount <= count; j += together * F::kCount)
    score_block<F, kQueries, together>(queries, query_stride, keys, stride, j, soon, head_size, scale, scores, scores_stride);
  for (; j < count; j += F::kCount)
    score_block<F, kQueries, 1>(queries, query_stride, keys, stride, j, soon, head_size, scale, scores, scores_stride);
}

// -1 and 0, from which first_lanes() takes a vector (GCC 12 compares element by element inside target clones).
template <class Integer, int kCount>
struct Steps {
  alignas(64) Integer values[2 * kCount];
  constexpr Steps() : values() {
    for (int i = 0; i < kCount; ++i) values[i] = -1;
  }
};
template <class F>
constexpr Steps<ElementOf<BitsOf<typename F::Vector>>, F::kCount> kSteps;

// All bits of the first `count` lanes.
template <class F>
MOLT_INLINE BitsOf<typename F::Vector> first_lanes(std::int64_t count) {
  BitsOf<typename F::Vector> lanes;
  std::memcpy(&lanes, kSteps<F>.values + F::kCount - std::min<std::int64_t>(count, F::kCount), sizeof lanes);
  return lanes;
}

// What exponentials() asks for with every vector, so that memory does not rest meanwhile.
constexpr std::int64_t kEarly = 2;

// Scores begin … end (in units of log 2) become exponentials, what is before and after them in whole vectors zeros; returns their
// sum. `soon`: tiles to ask for meanwhile, kEarly values of each position.
template <class F, class T = typename F::Scalar>
MOLT_INLINE T exponentials(T* scores, std::int64_t begin, std::int64_t end, const T* soon, std::int64_t stride) {
  using Vector = typename F::Vector;
  const std::int64_t whole = (end + F::kCount - 1) / F::kCount * F::kCount, last = whole - F::kCount;
  const auto counts = first_lanes<F>(end - last);
  std::fill(scores, scores + begin, -std::numeric_limits<T>::infinity());
  store(scores + last, counts ? load<F::kBytes>(scores + last) : Vector{} - std::numeric_limits<T>::infinity());
  Vector largest = load<F::kBytes>(scores);
  for (std::int64_t j = F::kCount; j < whole; j += F::kCount) largest = larger(largest, load<F::kBytes>(scores + j));
  const T maximum = maximum_of(largest);
  const Vector smallest = splat_unseen<T, F::kBytes>(-126);
  Vector total = {};
  for (std::int64_t j = 0; j < whole; j += F::kCount) {
#pragma GCC unroll 2
    for (std::int64_t d = 0; d < kEarly; ++d) ask_for(vector_at(soon, stride, j) + d * kTile);
    const Vector value = exp2_in_range(larger(smallest, Vector(load<F::kBytes>(scores + j) - maximum)));
    store(scores + j, value);
    total += value;
  }
  std::fill(scores, scores + begin, T(0));
  store(scores + last, counts ? load<F::kBytes>(scores + last) : Vector{});
  return sum(total);
}

// Adds the weighted values of a vector of positions, of which the first `left` count. What lies beyond the end may be no number,
// of which no weight makes zero. The first `early` ones of `soon` have been asked for.
template <class F, int kQueries, bool kWhole, class T = typename F::Scalar>
MOLT_INLINE void add_weighted(const T* values, const T* soon, std::int64_t early, const T* weights, std::int64_t weights_stride,
                              std::int64_t left, typename F::Vector* total) {
  using Vector = typename F::Vector;
  constexpr int each = F::kCount / kQueries;
  BitsOf<Vector> counts;
  if constexpr (!kWhole) counts = first_lanes<F>(left);
  Vector weight[kQueries];
#pragma GCC unroll 2
  for (int g = 0; g < kQueries; ++g) weight[g] = load<F::kBytes>(weights + g * weights_stride);
#pragma GCC unroll 16
  for (int i = 0; i < each; ++i) {
    if (i >= early) ask_for(soon + i * kTile);
    Vector value = load<F::kBytes>(values + i * kTile);
    if constexpr (!kWhole) value = counts ? value : Vector{};
#pragma GCC unroll 2
    for (int g = 0; g < kQueries; ++g) total[g * each + i] += weight[g] * value;
  }
}

// Values d … of a key head weighted and summed over positions first … end, as many as a vector has lanes for each of kQueries
// rows of weights: the first row's in the first lanes.
template <class F, int kQueries, class T = typename F::Scalar>
MOLT_INLINE typename F::Vector weigh(const Stream<T>& values, std::int64_t d, const T* weights, std::int64_t weights_stride,
                                     std::int64_t first, std::int64_t end) {
  using Vector = typename F::Vector;
  const std::int64_t stride = kTile * values.context.rows.token;
  Vector total[F::kCount];
#pragma GCC unroll 16
  for (int i = 0; i < F::kCount; ++i) total[i] = Vector{};
  for (std::int64_t at = first; at < end;) {
    const Run<T> run = run_from(values, at, end);
    const T *rows = run.rows + d * kTile, *soon = run.soon + d * kTile, *own = weights + at - first;
    std::int64_t j = 0;
    for (; j + F::kCount <= run.count; j += F::kCount)
      add_weighted<F, kQueries, true>(vector_at(rows, stride, j), vector_at(soon, stride, j), values.early - d, own + j,
                                      weights_stride, F::kCount, total);
    if (j < run.count)
      add_weighted<F, kQueries, false>(vector_at(rows, stride, j), vector_at(soon, stride, j), values.early - d, own + j,
                                       weights_stride, run.count - j, total);
    at += run.count;
  }
  return sums(total);
}

// Weighted values of heads `head` and, with two queries, `other`, divided by their sums of weights, and out.
template <class F, int kQueries, class T = typename F::Scalar>
MOLT_INLINE void combine(const AttentionForward<T>& work, const Task& task, const Stream<T>& values, std::int64_t first,
                         std::int64_t head, std::int64_t other, const T* scores, std::int64_t scores_stride) {
  constexpr int each = F::kCount / kQueries;
  const AttentionShape& shape = work.shape;
  const QuerySpan<T>& span = work.spans[task.span];
  const std::int64_t heads[2] = {head, other}, group = task.kv_head * shape.group(), size = shape.head_size;
  const T* weights = scores + (head - group) * scores_stride;
  const T* totals = scores + shape.group() * scores_stride - group;
  // The last ones of a head are taken together with some before them.
  for (std::int64_t at = 0; at < size; at += each) {
    const std::int64_t d = std::min(at, size - each);
    const auto sums = weigh<F, kQueries>(values, d, weights, (other - head) * scores_stride, first, task.end);
    for (int g = 0; g < kQueries; ++g) {
      T* out = work.out.at(span.first + task.query, heads[g]) + d;
      const T inverse = T(1) / totals[heads[g]];
      for (int i = 0; i < each; ++i) out[i] = sums[g * each + i] * inverse;
    }
  }
}

// `scores` has room for scores_stride + 1 numbers a query: its scores, and behind those of all queries the sums.
template <class F, class T = typename F::Scalar>
MOLT_INLINE void attend(const AttentionForward<T>& work, const Task& task, const Task& next, T* scores,
                        std::int64_t scores_stride) {
  const AttentionShape& shape = work.shape;
  const QuerySpan<T>&span = work.spans[task.span], &next_span = work.spans[next.span];
  const std::int64_t group = shape.group(), head = task.kv_head * group, token = span.first + task.query;
  const std::int64_t first = task.begin / kTile * kTile, stride = kTile * span.keys.rows.token;
  const T scale = static_cast<T>(shape.scale * M_LOG2E);
  // What lies near a core must hold this task's and the next one's.
  constexpr std::int64_t near = 1 << 17;  // bytes
  const std::int64_t bytes = 4 * (task.end - first) * shape.head_size * static_cast<std::int64_t>(sizeof(T));
  const std::int64_t next_end = bytes <= near ? next.end : 0;
  const Stream<T> keys{span.keys, next_span.keys, task.kv_head, next.kv_head, next_end, 0};
  const Stream<T> values{span.values,  next_span.values, task.kv_head,
                         next.kv_head, next_end,         std::min(kEarly * group, shape.head_size)};
  for (std::int64_t at = first; at < task.end;) {
    const Run<T> run = run_from(keys, at, task.end);
    const T* query = work.q.at(token, head);
    T* row = scores + at - first;
    std::int64_t g = 0;
    for (; g + 2 <= group; g += 2, query += 2 * work.q.head, row += 2 * scores_stride)
      score<F, 2>(query, work.q.head, run.rows, stride, run.count, run.soon, shape.head_size, scale, row, scores_stride);
    if (g < group)
      score<F, 1>(query, work.q.head, run.rows, stride, run.count, run.soon, shape.head_size, scale, row, scores_stride);
    at += run.count;
  }
  T* totals = scores + group * scores_stride;
  const T* soon = run_from(values, first, task.end).soon;
  for (std::int64_t g = 0; g < group; ++g)
    totals[g] = exponentials<F>(scores + g * scores_stride, task.begin - first, task.end - first,
                                soon + std::min(g * kEarly, shape.head_size - kEarly) * kTile, stride);
  for (std::int64_t g = 0; g < group; g += 2) {
    const std::int64_t other = std::min(g + 1, group - 1);
    if (other > g || shape.head_size < F::kCount)
      combine<F, 2>(work, task, values, first, head + g, head + other, scores, scores_stride);
    else
      combine<F, 1>(work, task, values, first, head + g, head + g, scores, scores_stride);
  }
}

MOLT_WIDE void run_wide(const AttentionForward<float>& work, const Task* task, float* scores, std::int64_t scores_stride) {
  attend<Form<float, 64>>(work, task[0], task[1], scores, scores_stride);
}
MOLT_CLONES void run(const AttentionForward<float>& work, const Task* task, float* scores, std::int64_t scores_stride) {
  attend<Form<float, 32>>(work, task[0], task[1], scores, scores_stride);
}
MOLT_CLONES void run(const AttentionForward<double>& work, const Task* task, double* scores, std::int64_t scores_stride) {
  attend<Form<double, 32>>(work, task[0], task[1], scores, scores_stride);
}

template <class T>
void attend_spans(const AttentionForward<T>& work, void (*run)(const AttentionForward<T>&, const Task*, T*, std::int64_t)) {
  const AttentionShape& shape = work.shape;
  std::vector<Task> tasks;
  std::int64_t longest = 0, keys = 0, queries = 0;
  for (const QuerySpan<T>& span : work.spans) queries += span.count;
  tasks.reserve(static_cast<std::size_t>(queries * shape.kv_heads + 1));
  for (std::int64_t span = 0; span < static_cast<std::int64_t>(work.spans.size()); ++span)
    for (std::int64_t query = 0; query < work.spans[span].count; ++query) {
      const std::int64_t end = work.spans[span].context + query + 1, begin = std::max<std::int64_t>(0, end - shape.window);
      longest = std::max(longest, end - begin);
      keys += end - begin;
      for (std::int64_t kv_head = 0; kv_head < shape.kv_heads; ++kv_head) tasks.push_back({span, query, kv_head, begin, end});
    }
  if (tasks.empty()) return;
  // Waking a thread costs some microseconds: as much as 64k multiplications.
  const std::int64_t count = std::ssize(tasks), each = std::max<std::int64_t>(1, keys * shape.heads * shape.head_size / count);
  const std::int64_t stride = (longest + 3 * kTile - 1) / kTile * kTile;  // whole tiles at both ends
  tasks.push_back({});                                                    // what comes after the last one: nothing
  at::parallel_for(0, count, std::max<std::int64_t>(1, 65536 / each), [&](std::int64_t begin, std::int64_t end) {
    Scratch<T> scores(shape.group() * (stride + 1));
    for (std::int64_t task = begin; task < end; ++task) run(work, &tasks[task], scores.get(), stride);
  });
}

}  // namespace attention_decode

void attention_decode_cpu(const AttentionForward<float>& work) {
  using namespace attention_decode;
  using Run = void (*)(const AttentionForward<float>&, const Task*, float*, std::int64_t);
  const Run narrow = run;
  attend_spans(work, has_wide_lanes() ? run_wide : narrow);
}
void attention_decode_cpu(const AttentionForward<double>& work) {
  attention_decode::attend_spans<double>(work, attention_decode::run);
}

}  // namespace molt::ops
