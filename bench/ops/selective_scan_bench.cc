// The selective scan: one sequence of 1024 tokens, d_inner 512, state 16 with every optional input (anchors_cpu.md has its peers,
// and bench/peers/selective_scan.py times them beside this program), the same packed and grouped, and one-token updates.
#include <ATen/Functions.h>
#include <benchmark/benchmark.h>

#include "ops/selective_scan/selective_scan.h"

namespace molt::ops {
namespace scan_bench {

ScanInput input(std::int64_t tokens, std::int64_t d_inner, std::int64_t d_xb, std::int64_t state) {
  at::manual_seed(1);
  return {.x = at::randn({tokens, d_xb}),
          .dt = at::randn({tokens, d_inner}) - 3,
          .dt_bias = at::randn({d_inner}),
          .A_log = at::arange(1, state + 1).to(at::kFloat).log().expand({d_inner, state}).contiguous(),
          .B = at::randn({tokens, d_xb}),
          .C = at::randn({tokens, d_inner}),
          .D = at::ones({d_inner}),
          .z = at::randn({tokens, d_inner}),
          .initial_state = {}};
}

void count(benchmark::State& run, std::int64_t tokens, std::int64_t d_inner, std::int64_t state) {
  const double exponentials = static_cast<double>(tokens * d_inner * state) * static_cast<double>(run.iterations());
  run.counters["tokens/s"] = benchmark::Counter(static_cast<double>(tokens * run.iterations()), benchmark::Counter::kIsRate);
  run.counters["exp/s"] = benchmark::Counter(exponentials, benchmark::Counter::kIsRate);
}

// Arguments: sequences, tokens of each, d_inner, d_xb, state.
void scan_forward(benchmark::State& run) {
  const Sequences sequences = Sequences::of(std::vector<std::int32_t>(run.range(0), static_cast<std::int32_t>(run.range(1))));
  const ScanInput in = input(sequences.tokens(), run.range(2), run.range(3), run.range(4));
  for (auto unused : run) benchmark::DoNotOptimize(selective_scan(in, sequences).y);
  count(run, sequences.tokens(), run.range(2), run.range(4));
}

void scan_forward_backward(benchmark::State& run) {
  const Sequences sequences = Sequences::of(std::vector<std::int32_t>(run.range(0), static_cast<std::int32_t>(run.range(1))));
  ScanInput in = input(sequences.tokens(), run.range(2), run.range(3), run.range(4));
  const at::Tensor gradient = at::randn({sequences.tokens(), run.range(2)});
  for (auto unused : run) {
    for (at::Tensor* field : {&in.x, &in.dt, &in.dt_bias, &in.A_log, &in.B, &in.C, &in.D, &in.z}) {
      *field = field->detach().requires_grad_(true);
    }
    selective_scan(in, sequences).y.backward(gradient);
  }
  count(run, sequences.tokens(), run.range(2), run.range(4));
}

// Arguments: sequences, d_inner, d_xb, state.
void scan_update(benchmark::State& run) {
  const std::int64_t n = run.range(0);
  const ScanInput in = input(n, run.range(1), run.range(2), run.range(3));
  const at::Tensor cache = at::zeros({n, run.range(1), run.range(3)}), slots = at::arange(n);
  for (auto unused : run) benchmark::DoNotOptimize(selective_scan_update(in, cache, slots));
  count(run, n, run.range(1), run.range(3));
}

BENCHMARK(scan_forward)
    ->Args({1, 1024, 512, 512, 16})
    ->Args({1, 1024, 512, 128, 16})
    ->Args({16, 64, 512, 512, 16})
    ->Args({1, 1024, 512, 512, 8})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK(scan_forward_backward)
    ->Args({1, 1024, 512, 512, 16})
    ->Args({1, 1024, 512, 128, 16})
    ->Args({16, 64, 512, 512, 16})
    ->Args({1, 1024, 512, 512, 8})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK(scan_update)->Args({1, 512, 512, 16})->Args({32, 4096, 1024, 16})->UseRealTime()->Unit(benchmark::kMicrosecond);

}  // namespace scan_bench
}  // namespace molt::ops
