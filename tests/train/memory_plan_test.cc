#include "train/memory_plan.h"

#include <gtest/gtest.h>

#include "ops/selective_scan/selective_scan.h"
#include "train/support.h"

namespace molt::memory_plan_test {

constexpr double tokens = 4096;

double planned(Recompute recompute, at::ScalarType dtype, Model* teacher = nullptr) {
  const auto model = test::tiny_model();
  return activation_bytes(*model, teacher, {static_cast<std::int64_t>(tokens), recompute, dtype, at::kCPU});
}

TEST(MemoryPlan, CountsWhatGoesIntoProductsAndComesOutAndTheStatesKept) {
  // Inputs and outputs of the products: attention qkv 32 -> 64 and out 32 -> 32; Mamba in 32 -> 96, dt 32 -> 4 -> 32 and out
  // 32 -> 32; twice the MLP, 32 -> 96 and 48 -> 32.
  const double kept = (32 + 64 + 32 + 32) + (32 + 96 + 32 + 4 + 4 + 32 + 32 + 32) + 2 * (32 + 96 + 48 + 32);
  const double ends = 3 * 32;  // around the final norm
  const double backward = 96 + 2 * 32, logits = 32;
  const auto states = static_cast<double>(
      ops::selective_scan_kept_bytes(static_cast<std::int64_t>(tokens), 1, at::empty({32, 4}), at::kFloat, at::kCPU));
  EXPECT_EQ(planned(Recompute::none, at::kFloat), 4 * tokens * (kept + ends + std::max(backward, logits)) + states);
  EXPECT_EQ(planned(Recompute::block, at::kFloat),
            4 * tokens * (2 * 32 + ends + (32 + 96 + 32 + 4 + 4 + 32 + 32 + 32 + 32 + 96 + 48 + 32) + backward) + states);
}

TEST(MemoryPlan, CountsTheStatesOfEachMambaLayerOrOfOneThatIsComputedAgain) {
  const auto on_a_gpu = [](int state_size, Recompute recompute) {
    ModelConfig config;
    parse_config(concat("{hidden_size: 32, vocabulary: 32, decoder: {type: layout, layout: [state, state, state], blocks: ",
                        "{state: {mixer: {type: mamba, d_inner: 32, d_xb: 16, state_size: ", state_size,
                        ", dt_rank: 4}, mlp: {intermediate_size: 48}}}}}"),
                 "model.yaml", {}, [&](ConfigVisitor& v) { config.visit(v); });
    Model model(config);
    return activation_bytes(model, nullptr, {static_cast<std::int64_t>(tokens), recompute, at::kBFloat16, at::kCUDA});
  };
  // Products are as wide whatever the size of a state, and a GPU keeps a state in fp32 every 32 tokens.
  const double more = (tokens / 32 + 1) * 32 * (16 - 8) * 4;
  EXPECT_EQ(on_a_gpu(16, Recompute::none) - on_a_gpu(8, Recompute::none), 3 * more);
  EXPECT_EQ(on_a_gpu(16, Recompute::mixer) - on_a_gpu(8, Recompute::mixer), more);
  EXPECT_EQ(on_a_gpu(16, Recompute::block) - on_a_gpu(8, Recompute::block), more);
}

TEST(MemoryPlan, RecomputingTakesLessAndATeacherMore) {
  const auto teacher = test::tiny_model();
  const double none = planned(Recompute::none, at::kFloat), mixer = planned(Recompute::mixer, at::kFloat);
  EXPECT_LT(planned(Recompute::block, at::kFloat), mixer);
  EXPECT_LT(mixer, none);
  EXPECT_GT(planned(Recompute::none, at::kFloat, teacher.get()), none);
  EXPECT_LT(planned(Recompute::none, at::kBFloat16), none);
}

TEST(MemoryPlan, TrainedWeightsHaveGradientsMomentsAndMasters) {
  MemoryPlan plan;
  LoopConfig loop;
  plan_training(plan, 10, loop, at::kBFloat16, at::kCUDA);
  EXPECT_EQ(plan.total(), 10 * (4 + 12));
  plan_training(plan, 10, loop, at::kFloat, at::kCPU);
  EXPECT_EQ(plan.total(), 10 * (4 + 8 + 12));  // what is saved is copied
  loop.save_in_background = false;
  loop.average_decay = 0.99;
  plan_training(plan, 10, loop, at::kFloat, at::kCPU);
  EXPECT_EQ(plan.total(), 10 * (4 + 8 + 4));
}

// Hybrids of alternating attention and Mamba layers, micro-batches of 8,192 tokens of synthetic problems, in bfloat16: the most
// that was allocated while they trained on an H200, in MiB.
struct Measured {
  std::int64_t hidden, layers, heads, intermediate, vocabulary;
  double none, mixer, block;
};

TEST(MemoryPlan, IsWithinATenthOfWhatAGpuAllocated) {
  constexpr double learned = 0.365;  // of the problems' tokens: their solutions
  for (const Measured& measured :
       {Measured{256, 8, 4, 704, 16000, 1016, 840, 512}, Measured{768, 12, 12, 2048, 32000, 5021, 4215, 2775}}) {
    const std::int64_t groups = std::max<std::int64_t>(1, measured.heads / 3);
    std::string layout;
    for (std::int64_t i = 0; i < measured.layers; ++i) layout += i % 2 == 0 ? "full, " : "state, ";
    const std::string mlp = concat("mlp: {intermediate_size: ", measured.intermediate, "}");
    ModelConfig config;
    parse_config(concat("{hidden_size: ", measured.hidden, ", vocabulary: ", measured.vocabulary,
                        ", decoder: {type: layout, blocks: {full: {mixer: {type: attention, heads: ", measured.heads,
                        ", head_groups: ", groups, ", head_size: 64}, ", mlp,
                        "}, state: {mixer: {type: mamba, d_inner: ", measured.hidden, ", d_xb: ", groups * 64,
                        ", state_size: 16, dt_rank: ", measured.hidden / 16, "}, ", mlp, "}}, layout: [", layout, "]}}"),
                 "model.yaml", {}, [&](ConfigVisitor& v) { config.visit(v); });
    Model model(config);
    model.to(at::kCPU, at::kBFloat16);  // the tensors stay on the meta device
    MemoryPlan plan;
    double values = 0;
    for (const Parameter& parameter : model.parameters()) {
      plan.student += static_cast<double>(parameter.value.nbytes());
      values += static_cast<double>(parameter.value.numel());
    }
    plan_training(plan, values, LoopConfig(), at::kBFloat16, at::kCUDA);
    for (const auto& [recompute, most] : {std::pair(Recompute::none, measured.none), std::pair(Recompute::mixer, measured.mixer),
                                          std::pair(Recompute::block, measured.block)}) {
      plan.activations = activation_bytes(
          model, nullptr,
          {.tokens = 8192, .recompute = recompute, .dtype = at::kBFloat16, .device = at::kCUDA, .loss_share = learned});
      EXPECT_NEAR(plan.total() / 0x1p20, most, 0.1 * most) << measured.hidden << " " << static_cast<int>(recompute);
    }
  }
}

}  // namespace molt::memory_plan_test
