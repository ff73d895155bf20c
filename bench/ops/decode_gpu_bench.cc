// What a step of generation does on a GPU, at the shapes of the published 15B model: updates of Mamba layers, attention over the
// cache, products of few rows beside LibTorch's, drawing is in molt bench.
//   molt_ops_bench --benchmark_filter=decode_gpu
#include <ATen/Functions.h>
#include <benchmark/benchmark.h>
#include <c10/core/InferenceMode.h>

#include <cmath>

#include "ops/attention/attention.h"
#include "ops/mamba_update/mamba_update.h"
#include "ops/skinny_linear/skinny_linear.h"
#include "support/device_timer.h"

namespace molt::ops {
namespace decode_gpu_bench {

at::TensorOptions on_gpu(at::ScalarType dtype) {
  return at::TensorOptions(at::kCUDA).dtype(dtype);
}

void count_bytes(benchmark::State& state, double bytes) {
  state.counters["bytes/s"] = benchmark::Counter(bytes * static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
}

// Argument: sequences. Their states take turns with others', so that none is found in the L2 cache.
void decode_gpu_mamba_update(benchmark::State& state) {
  c10::InferenceMode no_gradients;
  constexpr std::int64_t d_inner = 4096, d_xb = 1024, size = 16, rank = 16, width = 4;
  const std::int64_t n = state.range(0), turns = std::max<std::int64_t>(2, 512 / n);
  const auto bf16 = on_gpu(at::kBFloat16), fp32 = on_gpu(at::kFloat);
  const at::Tensor zxBC = at::randn({n, 2 * d_inner + 2 * d_xb}, bf16), low = at::randn({n, rank}, bf16),
                   dt_weight = at::randn({d_inner, rank}, bf16);
  ConvInput conv;
  conv.x = zxBC.narrow(1, d_inner, d_xb), conv.weight = at::randn({d_inner, width}, bf16), conv.bias = at::randn({d_inner}, bf16);
  conv.repeat = d_inner / d_xb, conv.group_size = size;
  const ScanInput scan{.x = {},
                       .dt = {},
                       .dt_bias = at::randn({d_inner}, bf16),
                       .A_log = at::rand({d_inner, size}, fp32),
                       .B = zxBC.narrow(1, d_inner + d_xb, d_xb),
                       .C = zxBC.narrow(1, d_inner + 2 * d_xb, d_inner),
                       .D = at::ones({d_inner}, fp32),
                       .z = zxBC.narrow(1, 0, d_inner),
                       .initial_state = {}};
  MambaCache cache{.windows = at::zeros({n * turns, d_xb, width - 1}, bf16),
                   .states = at::zeros({n * turns, d_inner, size}, fp32),
                   .slots = {},
                   .context_lens = at::ones({n}, on_gpu(at::kInt))};
  std::vector<at::Tensor> slots;
  for (std::int64_t i = 0; i < turns; ++i) slots.push_back(at::arange(i * n, (i + 1) * n, on_gpu(at::kLong)));
  std::size_t turn = 0;
  time_on_gpu(state, [&] {
    cache.slots = slots[turn++ % slots.size()];
    mamba_update(conv, scan, low, dt_weight, cache);
  });
  count_bytes(state, 2.0 * static_cast<double>(n * d_inner * size * 4));
}
BENCHMARK(decode_gpu_mamba_update)->Arg(1)->Arg(32)->Arg(256)->UseManualTime()->Unit(benchmark::kMicrosecond);

// Arguments: sequences, tokens of each in the cache.
void decode_gpu_attention(benchmark::State& state) {
  constexpr std::int64_t heads = 32, kv_heads = 8, head_size = 128;
  const std::int64_t n = state.range(0), context = state.range(1);
  const auto bf16 = on_gpu(at::kBFloat16);
  const at::Tensor k = at::randn({n, context, kv_heads, head_size}, bf16), v = at::randn_like(k),
                   q = at::randn({n, heads, head_size}, bf16);
  const std::vector<std::int32_t> lens(static_cast<std::size_t>(n), static_cast<std::int32_t>(context - 1));
  const PagedContext paged{at::tensor(lens, at::kInt).to(at::kCUDA), lens, at::arange(n, on_gpu(at::kInt)).view({n, 1})};
  const Sequences fresh = Sequences::of(std::vector<std::int32_t>(static_cast<std::size_t>(n), 1), at::kCUDA);
  time_on_gpu(state, [&] { attention_with_cache(q, k, v, fresh, paged, 1 / std::sqrt(128.0)); });
  count_bytes(state, 2.0 * static_cast<double>(k.numel()) * 2);
}
BENCHMARK(decode_gpu_attention)
    ->Args({1, 16384})
    ->Args({8, 8192})
    ->Args({32, 8192})
    ->Args({256, 1024})
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond);

// Arguments: rows, in, out.
template <bool by_molt>
void decode_gpu_product(benchmark::State& state) {
  c10::InferenceMode no_gradients;
  const std::int64_t rows = state.range(0), in = state.range(1), out = state.range(2);
  const auto bf16 = on_gpu(at::kBFloat16);
  const at::Tensor x = at::randn({rows, in}, bf16), weight = at::randn({out, in}, bf16), other = at::randn({out, in}, bf16);
  std::int64_t turn = 0;
  time_on_gpu(state, [&] {
    const at::Tensor& w = turn++ % 2 ? weight : other;
    by_molt ? skinny_linear(x, w) : at::mm(x, w.t());
  });
  count_bytes(state, 2.0 * static_cast<double>(weight.numel()));
}
void shapes(benchmark::internal::Benchmark* benchmark) {
  for (const std::int64_t rows : {1, 8}) {
    benchmark->Args({rows, 5120, 28672})->Args({rows, 14336, 5120})->Args({rows, 5120, 6144})->Args({rows, 5120, 131072});
  }
  benchmark->UseManualTime()->Unit(benchmark::kMicrosecond);
}
BENCHMARK(decode_gpu_product<true>)->Name("decode_gpu_product/molt")->Apply(shapes);
BENCHMARK(decode_gpu_product<false>)->Name("decode_gpu_product/libtorch")->Apply(shapes);

}  // namespace decode_gpu_bench
}  // namespace molt::ops
