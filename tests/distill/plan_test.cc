#include "distill/plan.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "distill/convert.h"
#include "distill/measure.h"
#include "distill/support.h"

namespace molt::plan_test {

using namespace distill_test;

const StagePlan& find(const RecipePlan& plan, const std::string& name) {
  for (const StagePlan& stage : plan.stages) {
    if (stage.name == name) return stage;
  }
  throw std::logic_error(name);
}

class PublishedRecipe : public testing::Test {
 protected:
  RecipeConfig recipe = load_config<RecipeConfig>(fs::path(MOLT_SOURCE) / "recipes/apriel-h1.yaml");
  ModelConfig teacher = teacher_config(recipe, "apriel");
};

TEST_F(PublishedRecipe, HasThePublishedFiguresAndNeedsNoFolder) {
  const RecipePlan plan = plan_recipe(recipe, teacher, "apriel");
  EXPECT_NEAR(plan.teacher_parameters, 14.97e9, 0.005e9);
  EXPECT_EQ(teacher.num_layers(), 50);
  const std::vector<std::int64_t> mamba = {25, 27, 30, 30, 34, 37, 40};
  double distilled = 0;
  for (std::size_t i = 0; i < mamba.size(); ++i) {
    EXPECT_EQ(plan.stages[i].mamba_layers, mamba[i]);
    EXPECT_EQ(plan.stages[i].layers, 50);
    if (plan.stages[i].name != "H-30-SFT") distilled += plan.stages[i].tokens;
  }
  EXPECT_NEAR(distilled, 136.5e9, 0.05e9);
  EXPECT_NEAR(find(plan, "H-25").tokens + find(plan, "H-27").tokens + find(plan, "H-30").tokens, 55.9e9, 0.05e9);
  EXPECT_NEAR(find(plan, "H-30-SFT").tokens, 20.9e9, 0.05e9);
  EXPECT_EQ(recipe.training.micro_batches * recipe.training.micro_batch_tokens, 768 * 4096);
  EXPECT_EQ(find(plan, "H-30-SFT").teacher_flops, 0);
  // A forward pass costs about two FLOPs a parameter and token, three times that with backward.
  const StagePlan& first = find(plan, "H-25");
  EXPECT_NEAR(first.teacher_flops / first.tokens, 2 * plan.teacher_parameters, 0.1 * 2 * plan.teacher_parameters);
  EXPECT_NEAR(first.student_flops / first.tokens, 6 * first.parameters, 0.1 * 6 * first.parameters);
}

TEST_F(PublishedRecipe, MixersAloneFitBesideTheTeacherOnOneCard) {
  recipe.dtype = "bfloat16";
  for (StageConfig& stage : recipe.stages) stage.training.trainable = {"layers.*.mixers.mamba.*"};
  for (StageConfig& stage : recipe.stages) stage.training.recompute = "block";
  const StagePlan h30 = find(plan_recipe(recipe, teacher, "apriel"), "H-30");
  // 30 mixers of in_proj 5120 x 10240, out_proj 4096 x 5120, dt's 16 x (5120 + 4096 + 1), convolution, A_log and D.
  const double mixer = 5120.0 * 10240 + 4096.0 * 5120 + 16 * 5120 + 4096 * 17 + 4096 * 5 + 4096 * 16 + 4096;
  EXPECT_NEAR(h30.trained, 30 * mixer, 1);
  EXPECT_NEAR(h30.memory.student, 2 * 30 * mixer, 1);  // all the rest is the teacher's
  EXPECT_NEAR(h30.memory.teacher, 2 * 14.974e9, 0.01e9);
  EXPECT_EQ(h30.memory.gradients, 4 * h30.trained);
  EXPECT_EQ(h30.memory.optimizer, 12 * h30.trained);
  EXPECT_LT(h30.memory.total(), 141e9);
  for (StageConfig& stage : recipe.stages) stage.training.trainable = {"*"};
  EXPECT_GT(find(plan_recipe(recipe, teacher, "apriel"), "H-30").memory.total(), 141e9);
}

TEST_F(PublishedRecipe, TheTableSaysWhatFits) {
  recipe.dtype = "bfloat16";
  const RecipePlan plan = plan_recipe(recipe, teacher, "apriel");
  const std::string small = plan_text(plan, {"RAM", 24e9}), large = plan_text(plan, {"GPU", 1e12});
  EXPECT_NE(small.find("(14.974 B)"), std::string::npos) << small;
  EXPECT_NE(small.find("in bfloat16 "), std::string::npos) << small;
  EXPECT_NE(small.find("does not fit"), std::string::npos) << small;
  EXPECT_EQ(large.find("does not fit"), std::string::npos) << large;
  EXPECT_NE(large.find("fits"), std::string::npos) << large;
}

TEST(Plan, TheQuickstartIsAPlanToo) {
  const auto recipe = load_config<RecipeConfig>(fs::path(MOLT_SOURCE) / "recipes/quickstart.yaml");
  const RecipePlan plan = plan_recipe(recipe, distill_test::teacher_config(12), "quickstart");
  EXPECT_EQ(plan.stages.size(), recipe.stages.size());
  EXPECT_LT(plan.stages[0].memory.total(), 2e9);
}

TEST(Plan, ATrialGivesEachStageATime) {
  auto recipe = load_config<RecipeConfig>(fs::path(MOLT_SOURCE) / "recipes/quickstart.yaml");
  recipe.device = "cpu";
  recipe.teacher.pretrained.path = "nowhere";  // neither weights nor a tokenizer
  for (StageConfig& stage : recipe.stages) stage.training.micro_batch_tokens = 128;
  recipe.stages[2].training.tokens = 128 * 300;
  const ModelConfig teacher = distill_test::teacher_config(12);
  RecipePlan plan = plan_recipe(recipe, teacher, "quickstart");
  RecipePlan small = plan;
  measure_recipe(recipe, teacher, {"RAM", 1e12}, "quickstart", plan);
  for (const StagePlan& stage : plan.stages) EXPECT_GT(stage.seconds, 0) << stage.name;
  EXPECT_EQ(recipe.stages[2].training.steps, 30);
  EXPECT_GT(plan.stages[2].seconds, 0.05);  // 300 steps of 128 tokens, not 30
  const std::string text = plan_text(plan, {"RAM", 1e12, 5e9});
  EXPECT_NE(text.find("by a short trial"), std::string::npos) << text;
  EXPECT_NE(text.find("4.66 GiB are free"), std::string::npos) << text;
  // What does not fit is not tried.
  measure_recipe(recipe, teacher, {"RAM", 1}, "quickstart", small);
  for (const StagePlan& stage : small.stages) EXPECT_EQ(stage.seconds, 0) << stage.name;
  EXPECT_EQ(plan_text(small, {"RAM", 1}).find("by a short trial"), std::string::npos);
}

TEST(Plan, CountsWhatTheStudentWrites) {
  auto recipe = load_config<RecipeConfig>(fs::path(MOLT_SOURCE) / "recipes/quickstart.yaml");
  recipe.device = "cpu";
  recipe.teacher.pretrained.path = "nowhere";
  recipe.stages.resize(1);
  StageConfig& stage = recipe.stages[0];
  stage.match.reset();
  stage.training.micro_batch_tokens = 256;
  stage.training.steps = 40;
  const ModelConfig teacher = distill_test::teacher_config(12);
  RecipePlan given = plan_recipe(recipe, teacher, "r");
  stage.data = recipe.data;
  stage.data->on_policy = {.fraction = 0.5, .max_tokens = 100};
  RecipePlan own = plan_recipe(recipe, teacher, "r");
  EXPECT_EQ(given.stages[0].sampling_flops, 0);
  // Two texts a batch of half a problem of 128 tokens and 100 new ones, in 20 of 40 batches; rounded up to 256 tokens each in the
  // cache, a key and a value of 16 in fp32 a layer but for the Mamba layers.
  const Model student(stage_configs(recipe, teacher, "r").at(stage.name));
  EXPECT_DOUBLE_EQ(own.stages[0].sampling_flops, 20 * 2 * 164 * student.flops(82));
  const double attention = static_cast<double>(attention_layers(student.config()).size());
  EXPECT_GE(own.stages[0].memory.sampling, 2 * 256 * attention * 2 * 16 * 4);
  EXPECT_LE(own.stages[0].memory.sampling, 2 * 256 * 12 * 2 * 16 * 4 + 1e6);
  EXPECT_EQ(own.stages[0].memory.total(), given.stages[0].memory.total() + own.stages[0].memory.sampling);
  EXPECT_EQ(plan_text(given, {"RAM", 1e12}).find("sampling"), std::string::npos);
  measure_recipe(recipe, teacher, {"RAM", 1e12}, "r", own);
  EXPECT_GT(own.stages[0].seconds, 0);
  const std::string text = plan_text(own, {"RAM", 1e12});
  EXPECT_NE(text.find("sampling"), std::string::npos) << text;
  EXPECT_NE(text.find("caches"), std::string::npos) << text;
}

TEST(Plan, WithoutFolderAndArchitectureThereIsNoTeacher) {
  EXPECT_EQ(error_of([] { teacher_config(parse<RecipeConfig>("seed: 1"), "r.yaml"); }),
            "r.yaml: teacher: found neither a folder (pretrained.path) nor an architecture, expected one of them");
  EXPECT_EQ(error_of([] { teacher_config(parse<RecipeConfig>("teacher: {pretrained: {path: no/such/folder}}"), "r.yaml"); }),
            "no/such/folder: no such folder");
}

}  // namespace molt::plan_test
