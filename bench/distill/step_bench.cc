// Whole training steps at the size of the published 15B teacher (hidden 5120, 32 query and 8 key heads of 128, MLP 14336,
// vocabulary 131072), on a GPU, in bf16, over sequences of 4,096.
//   molt_distill_bench --benchmark_filter=Supervised     next-token loss, every weight trains
//   molt_distill_bench --benchmark_filter=Distillation   reverse KL from a frozen teacher of the same shape beside the student
//   molt_distill_bench --benchmark_filter=NewMixers      50 layers, 30 of them Mamba: their mixers alone train, all else is the
//                                                        teacher's own storage
// Arguments: layers, tokens of a step and of a micro-batch, recompute (0 none, 1 mixer, 2 block). What does not fit is skipped.
// Standard error has the memory planned beforehand and the longest kernels of one step.
#include <ATen/Context.h>
#include <benchmark/benchmark.h>
#include <c10/core/CachingDeviceAllocator.h>

#include <cstdio>
#include <functional>
#include <memory>
#include <optional>

#include "base/error.h"
#include "base/random.h"
#include "distill/objective.h"
#include "model/random_model.h"
#include "support/gpu_activity.h"
#include "train/memory_plan.h"
#include "train/optimizer.h"

namespace {

using namespace molt;

constexpr std::int64_t sequence = 4096, vocabulary = 131072;
constexpr double dense_bf16 = 989e12;  // FLOP/s of an H100 or H200, as its maker says

// `mamba` of the layers, spread evenly, are Mamba.
ModelConfig shape_of_the_teacher(std::int64_t layers, std::int64_t mamba) {
  std::string layout;
  for (std::int64_t i = 0; i < layers; ++i)
    layout += concat(i > 0 ? ", " : "", (i + 1) * mamba / layers > i * mamba / layers ? "state" : "full");
  ModelConfig config;
  parse_config(concat(R"(
hidden_size: 5120
vocabulary: 131072
decoder:
  type: layout
  blocks:
    full: {mixer: {type: attention, heads: 32, head_groups: 8, head_size: 128}, mlp: {intermediate_size: 14336}}
    state: {mixer: {type: mamba, d_inner: 4096, d_xb: 1024, state_size: 16, dt_rank: 16}, mlp: {intermediate_size: 14336}}
  layout: [)",
                      layout, "]\n"),
               "bench", {}, [&](ConfigVisitor& v) { config.visit(v); });
  return config;
}

std::vector<PackedBatch> batches(std::int64_t step, std::int64_t micro_batch) {
  Random random(5);
  std::vector<PackedBatch> result;
  for (std::int64_t done = 0; done < step; done += micro_batch) {
    std::vector<PackedBatch::Sample> samples(static_cast<std::size_t>(micro_batch / sequence));
    for (PackedBatch::Sample& sample : samples)
      for (std::int64_t t = 0; t < sequence; ++t) sample.tokens.push_back(static_cast<std::int32_t>(random.below(vocabulary)));
    result.push_back(PackedBatch::of(samples));
  }
  return result;
}

double billions(double bytes) {
  return bytes / 1e9;
}

struct Job {
  ModelConfig student;
  std::optional<ModelConfig> teacher;
  bool new_mixers_alone = false;  // train; all else is the teacher's storage

  bool trains(const std::string& name) const { return !new_mixers_alone || name.find(".mixers.mamba.") != std::string::npos; }
};

double bytes_of(Model& model, const std::function<bool(const std::string&)>& counts) {
  double total = 0;
  for (const Parameter& p : model.parameters()) total += counts(p.name) ? 2.0 * static_cast<double>(p.value.numel()) : 0;
  return total;
}

MemoryPlan plan_of(const Job& job, const ActivationShape& shape) {
  Model student(job.student);
  std::optional<Model> teacher;
  if (job.teacher) teacher.emplace(*job.teacher);
  MemoryPlan plan;
  if (teacher) plan.teacher = bytes_of(*teacher, [](const std::string&) { return true; });
  plan.student = bytes_of(student, [&](const std::string& name) { return job.trains(name); });
  plan_training(plan, plan.student / 2, LoopConfig(), shape.dtype, shape.device);
  plan.activations = activation_bytes(student, teacher ? &*teacher : nullptr, shape);
  return plan;
}

void steps(benchmark::State& state, const Job& job) {
  const ActivationShape shape{state.range(2), static_cast<Recompute>(state.range(3)), at::kBFloat16, at::Device(at::kCUDA, 0)};
  const MemoryPlan plan = plan_of(job, shape);
  auto* const memory = c10::getDeviceAllocator(at::kCUDA);
  memory->emptyCache();  // of the row before
  const auto free = static_cast<double>(memory->getMemoryInfo(0).first);
  std::fprintf(stderr,
               "planned: teacher %.1f, student %.1f, gradients %.1f, optimizer %.1f, activations %.1f, in all %.1f of %.1f GB\n",
               billions(plan.teacher), billions(plan.student), billions(plan.gradients), billions(plan.optimizer),
               billions(plan.activations), billions(plan.total()), billions(free));
  if (plan.total() > 0.98 * free) return state.SkipWithError("does not fit");

  const std::shared_ptr<const Model> teacher = job.teacher ? random_model(*job.teacher, shape.device, shape.dtype, 1) : nullptr;
  std::vector<const Model*> shared;
  if (job.new_mixers_alone) shared.push_back(teacher.get());
  const std::unique_ptr<Model> student = random_model(job.student, shape.device, shape.dtype, 2, shared);
  Optimizer optimizer(OptimizerConfig(), flatten_trainable([&](const ParameterVisitor& v) { student->visit(v); },
                                                           [&](const std::string& name) { return job.trains(name); }));
  memory->emptyCache();
  memory->resetPeakStats(0);
  std::unique_ptr<Objective> objective = std::make_unique<NextToken>();
  if (teacher) objective = std::make_unique<Distillation>(teacher, ops::LossMix{.reverse_kl = 1});
  const std::vector<PackedBatch> data = batches(state.range(1), shape.tokens);
  const auto step = [&] {
    optimizer.zero_gradients();
    double weight = 0;
    for (const PackedBatch& batch : data) {
      const Objective::Loss loss = objective->loss(*student, batch.to(shape.device), shape.recompute);
      loss.sum.backward();
      weight += loss.weight;
    }
    MOLT_CHECK(std::isfinite(optimizer.step(1e-6, weight).item<double>()), "a step whose gradient is not finite");
  };
  step();
  for (auto _ : state) step();
  const auto done = static_cast<double>(state.iterations() * state.range(1));
  const double flops = done * objective->flops(*student, sequence / 2);
  const auto peak = static_cast<double>(
      memory->getDeviceStats(0).allocated_bytes[static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE)].peak);
  state.counters["tokens/s"] = benchmark::Counter(done, benchmark::Counter::kIsRate);
  state.counters["FLOP/s"] = benchmark::Counter(flops, benchmark::Counter::kIsRate);
  state.counters["share_of_989T"] = benchmark::Counter(flops / dense_bf16, benchmark::Counter::kIsRate);
  state.counters["planned_GB"] = billions(plan.total());
  state.counters["peak_GB"] = billions(peak);
  report_gpu_activity(state, 1, step);
}

void BM_Supervised(benchmark::State& state) {
  if (!at::hasCUDA()) return state.SkipWithError("no GPU");
  steps(state, {shape_of_the_teacher(state.range(0), 0), {}});
}

void BM_Distillation(benchmark::State& state) {
  if (!at::hasCUDA()) return state.SkipWithError("no GPU");
  steps(state, {shape_of_the_teacher(state.range(0), 0), shape_of_the_teacher(state.range(0), 0)});
}

void BM_NewMixers(benchmark::State& state) {
  if (!at::hasCUDA()) return state.SkipWithError("no GPU");
  const std::int64_t layers = state.range(0);
  steps(state, {shape_of_the_teacher(layers, layers * 3 / 5), shape_of_the_teacher(layers, 0), true});
}

void arguments(benchmark::internal::Benchmark* b) {
  b->ArgNames({"layers", "step", "tokens", "recompute"})->Unit(benchmark::kMillisecond)->UseRealTime()->Iterations(2);
}
BENCHMARK(BM_Supervised)->Apply(arguments)->Args({10, 65536, 16384, 0})->Args({6, 65536, 16384, 0})->Args({4, 65536, 16384, 0});
BENCHMARK(BM_Distillation)->Apply(arguments)->Args({10, 65536, 16384, 0})->Args({5, 65536, 16384, 0})->Args({4, 65536, 16384, 0});
BENCHMARK(BM_NewMixers)->Apply(arguments)->Args({50, 16384, 16384, 2})->Args({50, 16384, 8192, 2})->Args({50, 16384, 4096, 2});

}  // namespace
