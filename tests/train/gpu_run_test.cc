// A training run on a GPU beside the same run on the CPU: in fp32 step by step, in bf16 on average.
#include <ATen/Context.h>
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <numeric>

#include "base/error.h"
#include "base/random.h"
#include "train/objective.h"
#include "train/optimizer.h"

namespace molt::gpu_run_test {

// The tiny teacher's shape with its middle layers Mamba: 12 layers, hidden 128, vocabulary 400.
std::unique_ptr<Model> hybrid(at::Device device, at::ScalarType dtype) {
  ModelConfig config;
  parse_config(R"(
hidden_size: 128
vocabulary: 400
decoder:
  type: layout
  blocks:
    full: {mixer: {type: attention, heads: 4, head_groups: 2, head_size: 32}, mlp: {intermediate_size: 256}}
    state: {mixer: {type: mamba, d_inner: 128, d_xb: 64, state_size: 16, dt_rank: 16}, mlp: {intermediate_size: 256}}
  layout: [full, full, full, full, state, state, state, state, full, full, full, full]
)",
               "hybrid", {}, [&](ConfigVisitor& v) { config.visit(v); });
  auto model = std::make_unique<Model>(config);
  model->initialise({.seed = 7, .standard_deviation = 0.05}, at::kCPU, dtype);
  model->to(device, dtype);
  return model;
}

// Sequences of which a token tells the next one in three of four cases, so that the loss has a floor well above 0; half of the
// tokens carry loss.
PackedBatch walks(std::int64_t step) {
  Random random(derive_seed(3, "walks", static_cast<std::uint64_t>(step)));
  std::vector<PackedBatch::Sample> samples(8);
  for (PackedBatch::Sample& sample : samples) {
    const std::int64_t length = random.between(20, 90);
    for (std::int64_t token = random.below(400); std::ssize(sample.tokens) < length;) {
      sample.tokens.push_back(static_cast<std::int32_t>(token));
      sample.weights.push_back(static_cast<float>(random.below(2)));
      token = random.below(4) == 0 ? random.below(400) : (token * 7 + 11) % 400;
    }
  }
  return PackedBatch::of(samples);
}

// Each step's mean loss. Of two micro-batches the second recomputes its blocks.
std::vector<double> losses(at::Device device, at::ScalarType dtype, std::int64_t steps, std::int64_t micro_batches) {
  const std::unique_ptr<Model> model = hybrid(device, dtype);
  Optimizer optimizer(OptimizerConfig(), flatten_trainable([&](const ParameterVisitor& v) { model->visit(v); },
                                                           [](const std::string&) { return true; }));
  NextToken objective;
  std::vector<at::Tensor> means;
  for (std::int64_t step = 0; step < steps; ++step) {
    optimizer.zero_gradients();
    at::Tensor sum = at::zeros({}, at::TensorOptions(device).dtype(at::kDouble));
    double weight = 0;
    for (std::int64_t i = 0; i < micro_batches; ++i) {
      const PackedBatch batch = walks(micro_batches * step + i).to(device);
      const Objective::Loss loss = objective.loss(*model, batch, i == 0 ? Recompute::none : Recompute::block);
      loss.sum.backward();
      sum += loss.sum.detach();
      weight += loss.weight;
    }
    optimizer.step(1e-3 * std::min(1.0, static_cast<double>(step + 1) / 20), weight);
    means.push_back(sum / weight);
  }
  const at::Tensor host = at::stack(means).cpu();
  return {host.const_data_ptr<double>(), host.const_data_ptr<double>() + steps};
}

const at::Device gpu(at::kCUDA, 0);

TEST(GpuRun, FollowsTheCpuInFp32) {
  if (!at::hasCUDA()) GTEST_SKIP() << "no GPU";
  ASSERT_FALSE(at::globalContext().allowTF32CuBLAS());
  const std::vector<double> expected = losses(at::kCPU, at::kFloat, 200, 2), found = losses(gpu, at::kFloat, 200, 2);
  EXPECT_LT(expected.back(), 0.8 * expected.front());
  double worst = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) worst = std::max(worst, std::abs(found[i] / expected[i] - 1));
  EXPECT_LT(worst, 1e-3);
  RecordProperty("largest_relative_difference", concat(worst));
  std::cout << "largest relative difference of a step's loss: " << worst << ", last loss " << expected.back() << "\n";
}

TEST(GpuRun, LearnsInBf16WhatItLearnsInFp32) {
  if (!at::hasCUDA()) GTEST_SKIP() << "no GPU";
  const std::vector<double> expected = losses(gpu, at::kFloat, 500, 1), found = losses(gpu, at::kBFloat16, 500, 1);
  double worst = 0;
  for (std::size_t window = 0; window + 50 <= expected.size(); window += 50) {
    const auto mean = [&](const std::vector<double>& of) {
      return std::accumulate(of.begin() + static_cast<std::ptrdiff_t>(window),
                             of.begin() + static_cast<std::ptrdiff_t>(window + 50), 0.0) /
             50;
    };
    worst = std::max(worst, std::abs(mean(found) / mean(expected) - 1));
  }
  EXPECT_LT(worst, 0.02);
  std::cout << "largest relative difference of 50 steps' mean loss: " << worst << ", last loss " << expected.back() << "\n";
}

TEST(GpuRun, RepeatsItselfBitForBit) {
  if (!at::hasCUDA()) GTEST_SKIP() << "no GPU";
  EXPECT_EQ(losses(gpu, at::kBFloat16, 20, 2), losses(gpu, at::kBFloat16, 20, 2));
}

}  // namespace molt::gpu_run_test
