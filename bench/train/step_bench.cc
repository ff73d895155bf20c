// A training step of the tiny teacher's shape and what it spends on the optimizer.
//   molt_train_bench --benchmark_filter=Step      tokens/s of forward, backward and update
//   molt_train_bench --benchmark_filter=AdamW     bytes/s: four tensors read, three written, gradients read once more for their
//   norm
#include <ATen/Functions.h>
#include <benchmark/benchmark.h>

#include <memory>

#include "base/error.h"
#include "base/random.h"
#include "train/objective.h"
#include "train/optimizer.h"

namespace {

using namespace molt;

// 12 layers, hidden 128, 4 query and 2 key heads of 32, MLP 256, vocabulary 400; the last `mamba` layers are Mamba.
std::unique_ptr<Model> tiny_teacher_shape(std::int64_t mamba) {
  ModelConfig config;
  std::string layout;
  for (std::int64_t i = 0; i < 12; ++i) layout += concat(i > 0 ? ", " : "", i < 12 - mamba ? "full" : "state");
  parse_config(concat(R"(
hidden_size: 128
vocabulary: 400
decoder:
  type: layout
  blocks:
    full: {mixer: {type: attention, heads: 4, head_groups: 2, head_size: 32}, mlp: {intermediate_size: 256}}
    state: {mixer: {type: mamba, d_inner: 128, d_xb: 64, state_size: 16, dt_rank: 16}, mlp: {intermediate_size: 256}}
  layout: [)",
                      layout, "]\n"),
               "bench", {}, [&](ConfigVisitor& v) { config.visit(v); });
  auto model = std::make_unique<Model>(config);
  model->initialise({}, at::kCPU, at::kFloat);
  return model;
}

AdamW optimizer_of(Model& model) {
  return AdamW(OptimizerConfig(), flatten_trainable([&](const ParameterVisitor& visitor) { model.visit(visitor); },
                                                    [](const std::string&) { return true; }));
}

// 4096 tokens of problems of about 130 tokens, the loss on half of them.
PackedBatch problems() {
  Random random(5);
  std::vector<PackedBatch::Sample> samples;
  for (int i = 0; i < 32; ++i) {
    PackedBatch::Sample sample;
    for (int t = 0; t < 128; ++t) {
      sample.tokens.push_back(static_cast<std::int32_t>(random.below(400)));
      sample.weights.push_back(t < 64 ? 0.0f : 1.0f);
    }
    samples.push_back(std::move(sample));
  }
  return PackedBatch::of(samples);
}

void BM_Step(benchmark::State& state) {
  const std::unique_ptr<Model> model = tiny_teacher_shape(state.range(0));
  AdamW optimizer = optimizer_of(*model);
  NextToken objective;
  const PackedBatch batch = problems();
  for (auto _ : state) {
    optimizer.zero_gradients();
    const Objective::Loss loss = objective.loss(*model, batch, Recompute::none);
    loss.sum.backward();
    optimizer.step(1e-4, loss.weight);
  }
  state.SetItemsProcessed(state.iterations() * batch.size());
  state.counters["FLOP/s"] = benchmark::Counter(
      static_cast<double>(batch.size() * state.iterations()) * objective.flops(*model, 65), benchmark::Counter::kIsRate);
}
BENCHMARK(BM_Step)->ArgName("mamba")->Arg(0)->Arg(4)->Arg(12)->Unit(benchmark::kMillisecond)->UseRealTime();

void BM_AdamW(benchmark::State& state) {
  std::vector<std::pair<std::string, at::Tensor>> leaves;
  for (int i = 0; i < 16; ++i) leaves.emplace_back(concat("w", i), at::rand({state.range(0) / 16 / 1024, 1024}));
  AdamW optimizer(OptimizerConfig(), flatten_trainable(
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
