// A training step of the tiny teacher's shape, one of a 124.7 M-parameter Mistral, and what a step spends on the optimizer.
//   molt_train_bench --benchmark_filter=BM_Step     tokens/s of forward, backward and update
//   molt_train_bench --benchmark_filter=BM_Mistral  the shape that bench/peers/train_step.py measures beside transformers
//   molt_train_bench --benchmark_filter=AdamW     bytes/s: four tensors read, three written, gradients read once more for their
//   norm
#include <ATen/Functions.h>
#include <benchmark/benchmark.h>

#include <memory>

#include "base/error.h"
#include "base/random.h"
#include "ops/host_allocator.h"
#include "train/objective.h"
#include "train/optimizer.h"

namespace {

using namespace molt;

[[maybe_unused]] const bool configured = (ops::install_host_allocator(), true);  // as the program does

struct Shape {
  std::int64_t hidden, heads, head_groups, head_size, mlp, vocabulary, dt_rank;
  std::string layout;  // one letter a layer: a attention, M Mamba of d_inner heads * head_size, d_xb head_groups * head_size
};

Shape tiny_teacher(std::int64_t mamba) {
  return {128, 4, 2, 32, 256, 400, 16, std::string(12 - mamba, 'a') + std::string(mamba, 'M')};
}

// 124.7 M parameters with attention alone.
Shape mistral(bool hybrid) {
  return {768, 12, 4, 64, 2048, 32000, 48, hybrid ? "aMaMaMaMaMaM" : "aaaaaaaaaaaa"};
}

std::unique_ptr<Model> make(const Shape& shape) {
  std::string layout;
  for (const char letter : shape.layout) layout += concat(layout.empty() ? "" : ", ", letter == 'a' ? "full" : "state");
  const std::string mlp = concat("mlp: {intermediate_size: ", shape.mlp, "}");
  const std::string full = concat("heads: ", shape.heads, ", head_groups: ", shape.head_groups, ", head_size: ", shape.head_size);
  const std::string state = concat("d_inner: ", shape.heads * shape.head_size, ", d_xb: ", shape.head_groups * shape.head_size,
                                   ", state_size: 16, dt_rank: ", shape.dt_rank);
  const std::string text = concat("hidden_size: ", shape.hidden, "\nvocabulary: ", shape.vocabulary,
                                  "\ndecoder:\n  type: layout\n  blocks:\n    full: {mixer: {type: attention, ", full, "}, ", mlp,
                                  "}\n    state: {mixer: {type: mamba, ", state, "}, ", mlp, "}\n  layout: [", layout, "]\n");
  ModelConfig config;
  parse_config(text, "bench", {}, [&](ConfigVisitor& v) { config.visit(v); });
  auto model = std::make_unique<Model>(config);
  model->initialise({}, at::kCPU, at::kFloat);
  return model;
}

Optimizer optimizer_of(Model& model) {
  return Optimizer(OptimizerConfig(), flatten_trainable([&](const ParameterVisitor& visitor) { model.visit(visitor); },
                                                        [](const std::string&) { return true; }));
}

// Samples of random tokens; the first `prompt` of each carry no loss.
PackedBatch samples(std::int64_t count, std::int64_t length, std::int64_t prompt, std::int64_t vocabulary) {
  Random random(5);
  std::vector<PackedBatch::Sample> samples;
  for (std::int64_t i = 0; i < count; ++i) {
    PackedBatch::Sample sample;
    for (std::int64_t t = 0; t < length; ++t) {
      sample.tokens.push_back(static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(vocabulary))));
      sample.weights.push_back(t < prompt ? 0.0f : 1.0f);
    }
    samples.push_back(std::move(sample));
  }
  return PackedBatch::of(samples);
}

void run_steps(benchmark::State& state, const Shape& shape, const PackedBatch& batch) {
  const std::unique_ptr<Model> model = make(shape);
  Optimizer optimizer = optimizer_of(*model);
  NextToken objective;
  const auto step = [&] {
    optimizer.zero_gradients();
    const Objective::Loss loss = objective.loss(*model, batch, Recompute::none);
    loss.sum.backward();
    optimizer.step(1e-4, loss.weight);
  };
  step();  // fills memory that later steps find in place
  for (auto _ : state) step();
  state.SetItemsProcessed(state.iterations() * batch.size());
  const double flops = objective.flops(*model, batch.sequences.length(0) / 2);
  state.counters["FLOP/s"] =
      benchmark::Counter(static_cast<double>(batch.size() * state.iterations()) * flops, benchmark::Counter::kIsRate);
}

// 4096 tokens of problems of about 130 tokens, the loss on half of them.
void BM_Step(benchmark::State& state) {
  run_steps(state, tiny_teacher(state.range(0)), samples(32, 128, 64, 400));
}
BENCHMARK(BM_Step)->ArgName("mamba")->Arg(0)->Arg(4)->Arg(12)->Unit(benchmark::kMillisecond)->UseRealTime();

void BM_Mistral(benchmark::State& state) {
  run_steps(state, mistral(state.range(0) != 0), samples(2, 1024, 0, 32000));
}
BENCHMARK(BM_Mistral)->ArgName("hybrid")->Arg(0)->Arg(1)->Unit(benchmark::kMillisecond)->MeasureProcessCPUTime()->UseRealTime();

void BM_AdamW(benchmark::State& state) {
  std::vector<std::pair<std::string, at::Tensor>> leaves;
  for (int i = 0; i < 16; ++i) leaves.emplace_back(concat("w", i), at::rand({state.range(0) / 16 / 1024, 1024}));
  Optimizer optimizer(OptimizerConfig(), flatten_trainable(
                                             [&](const ParameterVisitor& visitor) {
                                               for (auto& [name, value] : leaves) visitor(name, value);
                                             },
                                             [](const std::string&) { return true; }));
  optimizer.zero_gradients();
  for (auto& [name, value] : leaves) value.mutable_grad().fill_(1e-3);
  for (auto _ : state) optimizer.step(1e-4, 1.0);
  state.SetBytesProcessed(state.iterations() * state.range(0) * 4 * 8);
  state.counters["parameters/s"] =
      benchmark::Counter(static_cast<double>(state.range(0) * state.iterations()), benchmark::Counter::kIsRate);
}
BENCHMARK(BM_AdamW)->Arg(1 << 21)->Arg(1 << 26)->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace
