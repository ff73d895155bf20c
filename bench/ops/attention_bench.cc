// Attention beside LibTorch's scaled_dot_product_attention, called once a sequence as one would without packing.
//   molt_ops_bench --benchmark_filter=attention --benchmark_repetitions=7 --benchmark_enable_random_interleaving=true
#include <ATen/Functions.h>
#include <benchmark/benchmark.h>

#include <cmath>

#include "ops/attention/attention.h"

namespace molt::ops {
namespace attention_bench {

// Arguments: sequences, tokens of each, heads, kv_heads, head_size, window (0: none).
struct Case {
  Sequences sequences;
  at::Tensor q, k, v, gradient;
  double scale;
  std::optional<std::int64_t> window;
};

Case make(const benchmark::State& run, bool differentiable) {
  at::manual_seed(1);
  Case c;
  c.sequences = Sequences::of(std::vector<std::int32_t>(run.range(0), static_cast<std::int32_t>(run.range(1))));
  const std::int64_t tokens = c.sequences.tokens(), head_size = run.range(4);
  c.q = at::randn({tokens, run.range(2), head_size}).requires_grad_(differentiable);
  c.k = at::randn({tokens, run.range(3), head_size}).requires_grad_(differentiable);
  c.v = at::randn({tokens, run.range(3), head_size}).requires_grad_(differentiable);
  c.gradient = at::randn_like(c.q);
  c.scale = 1 / std::sqrt(head_size);
  if (run.range(5) > 0) c.window = run.range(5);
  return c;
}

at::Tensor by_molt(const Case& c) {
  return attention(c.q, c.k, c.v, c.sequences, c.scale, c.window);
}

at::Tensor by_libtorch(const Case& c) {
  std::vector<at::Tensor> parts;
  const std::int64_t group = c.q.size(1) / c.k.size(1);
  for (std::int64_t i = 0; i < c.sequences.count(); ++i) {
    const auto own = [&](const at::Tensor& x, std::int64_t times) {
      const at::Tensor rows = x.slice(0, c.sequences.offsets[i], c.sequences.offsets[i + 1]);
      return (times == 1 ? rows : rows.repeat_interleave(times, 1)).transpose(0, 1).unsqueeze(0);
    };
    std::optional<at::Tensor> mask;
    if (c.window) {
      const at::Tensor ones = at::ones({c.sequences.length(i), c.sequences.length(i)}, at::kBool);
      mask = ones.tril().triu(1 - *c.window);
    }
    const at::Tensor out =
        at::scaled_dot_product_attention(own(c.q, 1), own(c.k, group), own(c.v, group), mask, 0.0, !c.window, c.scale);
    parts.push_back(out.squeeze(0).transpose(0, 1));
  }
  return at::cat(parts);
}

using Attend = at::Tensor (*)(const Case&);

// Products of scores and values over the causal half: 4 heads head_size keys-seen FLOPs a token forward.
double flops(const benchmark::State& run) {
  return 2.0 * run.range(0) * run.range(1) * run.range(1) * run.range(2) * run.range(4);
}

void forward(benchmark::State& run, Attend attend) {
  const Case c = make(run, false);
  for (auto unused : run) benchmark::DoNotOptimize(attend(c));
  run.counters["FLOP/s"] = benchmark::Counter(flops(run), benchmark::Counter::kIsIterationInvariantRate);
}

void forward_backward(benchmark::State& run, Attend attend) {
  const Case c = make(run, true);
  for (auto unused : run) {
    for (const at::Tensor* leaf : {&c.q, &c.k, &c.v}) leaf->mutable_grad() = at::Tensor();
    attend(c).backward(c.gradient);
  }
  run.counters["FLOP/s"] = benchmark::Counter(3.5 * flops(run), benchmark::Counter::kIsIterationInvariantRate);
}

void shapes(benchmark::internal::Benchmark* b) {
  b->Args({20, 100, 4, 2, 32, 0})->Args({8, 256, 8, 4, 8, 0})->Args({1, 2048, 12, 4, 64, 0})->Args({1, 2048, 8, 8, 128, 256});
  b->Unit(benchmark::kMillisecond)->UseRealTime();
}
BENCHMARK_CAPTURE(forward, attention_molt, by_molt)->Apply(shapes);
BENCHMARK_CAPTURE(forward, attention_libtorch, by_libtorch)->Apply(shapes);
BENCHMARK_CAPTURE(forward_backward, attention_molt, by_molt)->Apply(shapes);
BENCHMARK_CAPTURE(forward_backward, attention_libtorch, by_libtorch)->Apply(shapes);

// One new token of each sequence. Arguments: sequences, earlier tokens, heads, kv_heads, head_size, block_size.
struct DecodeCase {
  at::Tensor q, k, v, table;
  Sequences fresh;
  std::vector<std::int32_t> lens;
  PagedContext context;
};

DecodeCase make_decode(const benchmark::State& run) {
  at::manual_seed(1);
  const std::int64_t n = run.range(0), blocks = (run.range(1) + run.range(5)) / run.range(5);
  DecodeCase c;
  c.q = at::randn({n, run.range(2), run.range(4)});
  c.k = at::randn({n * blocks, run.range(5), run.range(3), run.range(4)});
  c.v = at::randn_like(c.k);
  c.fresh = Sequences::of(std::vector<std::int32_t>(n, 1));
  c.lens.assign(n, static_cast<std::int32_t>(run.range(1)));
  c.context = {at::tensor(c.lens, at::kInt), c.lens, at::arange(n * blocks, at::kInt).view({n, blocks})};
  return c;
}

void decode_molt(benchmark::State& run) {
  const DecodeCase c = make_decode(run);
  for (auto unused : run) benchmark::DoNotOptimize(attention_with_cache(c.q, c.k, c.v, c.fresh, c.context, 0.3));
}

// A contiguous cache of equal lengths, the best case for LibTorch: one call for the batch, no gathering, the group's heads as
// queries.
void decode_libtorch(benchmark::State& run) {
  const DecodeCase c = make_decode(run);
  const std::int64_t n = run.range(0), kv_heads = run.range(3), head_size = run.range(4), group = run.range(2) / kv_heads;
  const auto dense = [&](const at::Tensor& cache) {
    return cache.view({n, -1, kv_heads, head_size}).slice(1, 0, run.range(1) + 1).transpose(1, 2);
  };
  for (auto unused : run)
    benchmark::DoNotOptimize(at::scaled_dot_product_attention(c.q.view({n, kv_heads, group, head_size}), dense(c.k), dense(c.v),
                                                              std::nullopt, 0.0, false, 0.3));
}

void decode_shapes(benchmark::internal::Benchmark* b) {
  b->Args({1, 130, 8, 4, 8, 256})
      ->Args({32, 130, 8, 4, 8, 256})
      ->Args({80, 130, 8, 4, 8, 272})  // more than a second-level cache holds
      ->Args({1, 1023, 12, 4, 64, 1024})
      ->Args({16, 1023, 12, 4, 64, 16});
  b->Unit(benchmark::kMicrosecond)->UseRealTime();
}
BENCHMARK(decode_molt)->Name("attention_decode_molt")->Apply(decode_shapes);
BENCHMARK(decode_libtorch)->Name("attention_decode_libtorch")->Apply(decode_shapes);

// A prompt of 512 tokens after 1024 earlier ones, in blocks of 16.
void prefill_chunk(benchmark::State& run) {
  at::manual_seed(1);
  const at::Tensor q = at::randn({512, 12, 64}), k = at::randn({96, 16, 4, 64}), v = at::randn_like(k);
  const std::vector<std::int32_t> lens{1024};
  const PagedContext context{at::tensor(lens, at::kInt), lens, at::arange(96, at::kInt).view({1, 96})};
  const Sequences fresh = Sequences::of({512});
  for (auto unused : run) benchmark::DoNotOptimize(attention_with_cache(q, k, v, fresh, context, 0.125));
  run.counters["FLOP/s"] = benchmark::Counter(4.0 * 512 * (1024 + 256) * 12 * 64, benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(prefill_chunk)->Name("attention_prefill_chunk_molt")->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace attention_bench
}  // namespace molt::ops
