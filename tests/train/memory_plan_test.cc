#include "train/memory_plan.h"

#include <gtest/gtest.h>

#include "train/support.h"

namespace molt::memory_plan_test {

constexpr double tokens = 4096;

double planned(Recompute recompute, at::ScalarType dtype, Model* teacher = nullptr) {
  const auto model = test::tiny_model();
  return activation_bytes(*model, teacher, {static_cast<std::int64_t>(tokens), recompute, dtype, at::kCPU});
}

TEST(MemoryPlan, CountsWhatGoesIntoProductsAndComesOut) {
  // Inputs and outputs of the products: attention qkv 32 -> 64 and out 32 -> 32; Mamba in 32 -> 96, dt 32 -> 4 -> 32 and out
  // 32 -> 32; twice the MLP, 32 -> 96 and 48 -> 32.
  const double kept = (32 + 64 + 32 + 32) + (32 + 96 + 32 + 4 + 4 + 32 + 32 + 32) + 2 * (32 + 96 + 48 + 32);
  const double ends = 3 * 32;  // around the final norm
  const double backward = 96 + 2 * 32, logits = 32;
  EXPECT_EQ(planned(Recompute::none, at::kFloat), 4 * tokens * (kept + ends + std::max(backward, logits)));
  EXPECT_EQ(planned(Recompute::block, at::kFloat),
            4 * tokens * (2 * 32 + ends + (32 + 96 + 32 + 4 + 4 + 32 + 32 + 32 + 32 + 96 + 48 + 32) + backward));
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

}  // namespace molt::memory_plan_test
