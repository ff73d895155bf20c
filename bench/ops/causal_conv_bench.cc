// The causal convolution with SiLU: one sequence of 1024 tokens, 512 channels, width 4; the same repeated from 128 columns;
// updates.
#include <ATen/Functions.h>
#include <benchmark/benchmark.h>

#include "ops/causal_conv/causal_conv.h"

namespace molt::ops {
namespace conv_bench {

ConvInput input(std::int64_t tokens, std::int64_t channels, std::int64_t repeat) {
  at::manual_seed(1);
  ConvInput in;
  in.x = at::randn({tokens, channels / repeat});
  in.weight = at::randn({channels, 4});
  in.bias = at::randn({channels});
  in.repeat = repeat;
  in.group_size = 16;
  return in;
}

void count(benchmark::State& run, std::int64_t tokens, std::int64_t channels) {
  const auto iterations = static_cast<double>(run.iterations());
  run.counters["tokens/s"] = benchmark::Counter(static_cast<double>(tokens) * iterations, benchmark::Counter::kIsRate);
  run.counters["channels/s"] =
      benchmark::Counter(static_cast<double>(tokens * channels) * iterations, benchmark::Counter::kIsRate);
}

// Arguments: tokens, channels, repeat.
void conv_forward(benchmark::State& run) {
  const Sequences sequences = Sequences::of({static_cast<std::int32_t>(run.range(0))});
  const ConvInput in = input(run.range(0), run.range(1), run.range(2));
  for (auto unused : run) benchmark::DoNotOptimize(causal_conv(in, sequences));
  count(run, run.range(0), run.range(1));
}

void conv_forward_backward(benchmark::State& run) {
  const Sequences sequences = Sequences::of({static_cast<std::int32_t>(run.range(0))});
  ConvInput in = input(run.range(0), run.range(1), run.range(2));
  const at::Tensor gradient = at::randn({run.range(0), run.range(1)});
  for (auto unused : run) {
    for (at::Tensor* field : {&in.x, &in.weight, &in.bias}) *field = field->detach().requires_grad_(true);
    causal_conv(in, sequences).backward(gradient);
  }
  count(run, run.range(0), run.range(1));
}

// Arguments: sequences, channels, repeat.
void conv_update(benchmark::State& run) {
  const ConvInput in = input(run.range(0), run.range(1), run.range(2));
  const at::Tensor cache = at::zeros({run.range(0), run.range(1) / run.range(2), 3}), slots = at::arange(run.range(0));
  for (auto unused : run) benchmark::DoNotOptimize(causal_conv_update(in, cache, slots));
  count(run, run.range(0), run.range(1));
}

BENCHMARK(conv_forward)->Args({1024, 512, 1})->Args({1024, 512, 4})->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK(conv_forward_backward)->Args({1024, 512, 1})->Args({1024, 512, 4})->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK(conv_update)->Args({1, 512, 1})->Args({32, 4096, 4})->UseRealTime()->Unit(benchmark::kMicrosecond);

}  // namespace conv_bench
}  // namespace molt::ops
