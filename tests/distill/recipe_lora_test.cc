// Stages of a recipe that train low-rank adapters: what they leave, merged or as adapters, how they go on, what they cost.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "distill/measure.h"
#include "distill/plan.h"
#include "distill/support.h"
#include "formats/hugging_face.h"
#include "formats/peft.h"
#include "train/checkpoint.h"

namespace molt::recipe_lora_test {

using namespace distill_test;

constexpr const char* kRecipe = R"(
seed: 3
data: {synthetic: {seed: 1}}
training: {steps: 4, micro_batch_tokens: 250, checkpoint_every: 2, optimizer: {learning_rate: 1.0e-2}, schedule: {warmup: 1}}
stages:
  - name: one
    mamba_layers: 1
    choose: {method: list, layers: [2]}
    convert: {state_size: 8, dt_rank: 4}
    head: {distillation_model: teacher}
  - {name: tuned, from: one, mamba_layers: 1, lora: {rank: 4, alpha: 8}}
  - {name: adapters, from: one, mamba_layers: 1, lora: {rank: 2, targets: [q_proj], export: adapters}}
  - name: two
    from: tuned
    mamba_layers: 2
    choose: {method: list, layers: [0]}
    convert: {state_size: 8, dt_rank: 4}
    head: {distillation_model: teacher}
)";

class RecipeLora : public Folder {
 protected:
  RecipeLora() { write_folder(*new_teacher(), folder / "teacher"); }

  RecipeConfig config(const std::string& output, const std::vector<std::string>& more = {}) const {
    std::vector<std::string> set = {"teacher.pretrained.path=" + (folder / "teacher").string(),
                                    "output=" + (folder / output).string(), "device=cpu"};
    set.insert(set.end(), more.begin(), more.end());
    RecipeConfig config;
    parse_config(kRecipe, "r.yaml", set, [&](ConfigVisitor& v) { config.visit(v); });
    return config;
  }
  void run(const RecipeConfig& config) { run_recipe(config, {"r.yaml", {{"molt", "test"}}}); }
  std::unique_ptr<Model> exported(const char* recipe, const char* stage) {
    return load_model(folder / recipe / stage / "export");
  }
};

TEST_F(RecipeLora, LeavesMergedWeightsOrAdaptersAndIsBuiltUpon) {
  run(config("a"));
  const PackedBatch batch = random_batch({9, 14});
  const auto output = [&](const Model& model) { return model.forward(batch); };
  const auto one = exported("a", "one"), tuned = exported("a", "tuned"), adapted = exported("a", "adapters");
  const fs::path checkpoint = list_checkpoints(folder / "a/tuned/run").front();
  EXPECT_FALSE(is_adapter_folder(folder / "a/tuned/export"));
  EXPECT_TRUE(is_adapter_folder(checkpoint / "export"));
  EXPECT_EQ(PeftAdapter::open(checkpoint / "export").base, folder / "a/one/export");
  EXPECT_LT(difference(output(*tuned), output(*load_model(checkpoint / "export"))), 1e-5);
  EXPECT_GT(difference(output(*tuned), output(*one)), 1e-3);
  // Norms have no adapters; the projections have moved.
  EXPECT_EQ(difference(parameter(*tuned, "layers.1.mixer_norm.weight"), parameter(*one, "layers.1.mixer_norm.weight")), 0);
  EXPECT_GT(difference(parameter(*tuned, "layers.2.mixers.mamba.in_proj.weight"),
                       parameter(*one, "layers.2.mixers.mamba.in_proj.weight")),
            1e-4);

  const fs::path adapters = folder / "a/adapters/export";
  ASSERT_TRUE(is_adapter_folder(adapters));
  EXPECT_TRUE(fs::exists(adapters / "scores.json") && fs::exists(adapters / "tokenizer.json"));
  EXPECT_EQ(PeftAdapter::open(adapters).updates.size(), 3u) << "one q_proj an attention layer";
  EXPECT_GT(difference(output(*adapted), output(*one)), 1e-4);

  const auto two = exported("a", "two");
  EXPECT_EQ(two->config().num_layers() - std::ssize(attention_layers(two->config())), 2);
  EXPECT_NE(read_file(folder / "a/two/export/README.md").find("tokens of training by low-rank adapters to a loss"),
            std::string::npos);
  EXPECT_EQ(read_json(folder / "a/recipe.json")["stages"][1]["adapted"], "merged");
}

TEST_F(RecipeLora, WhatWasInterruptedEndsAsIfItHadNotBeen) {
  run(config("whole"));
  run(config("cut"));
  const fs::path stage = folder / "cut/tuned";
  const std::vector<std::function<void()>> undo = {
      [&] { fs::remove_all(stage / "export"); },
      [&] { fs::remove_all(stage / "run/checkpoints/00000004"); },
      [&] { fs::remove_all(stage / "run"); },
  };
  for (std::size_t i = 0; i < undo.size(); ++i) {
    for (std::size_t j = 0; j <= i; ++j) undo[j]();
    Json index = read_json(folder / "cut/recipe.json");
    index["stages"][1]["status"] = "running";
    write_json(folder / "cut/recipe.json", index);
    run(config("cut"));
    EXPECT_TRUE(same_weights(*exported("cut", "tuned"), *exported("whole", "tuned"))) << i;
  }
}

TEST_F(RecipeLora, OtherWeightsBeneathTheAdaptersAreNoticed) {
  run(config("a"));
  Json index = read_json(folder / "a/recipe.json");
  index["stages"][1]["status"] = "running";
  write_json(folder / "a/recipe.json", index);
  const fs::path base = folder / "a/one/export";
  const std::unique_ptr<Model> other = load_model(base);
  Model changed(other->config());
  changed.initialise({9, 0.15}, at::kCPU, at::kFloat);
  export_model(changed, base, {.like = base});
  const std::string error = error_of([&] { run(config("a")); });
  EXPECT_NE(error.find(concat("the content of ", base.string(), " (here ")), std::string::npos) << error;
}

TEST_F(RecipeLora, ThePlanCountsAdapters) {
  const RecipeConfig recipe = config("p");
  RecipePlan plan = plan_recipe(recipe, distill_test::teacher_config(), "r.yaml");
  const StagePlan &one = plan.stages[0], &tuned = plan.stages[1], &adapters = plan.stages[2], &two = plan.stages[3];
  EXPECT_EQ(tuned.how, "SFT, LoRA");
  EXPECT_EQ(adapters.trained, 3 * (2 * 32 + 32 * 2)) << "A (2, 32) and B (32, 2) of three layers";
  EXPECT_LT(tuned.trained, tuned.parameters);
  EXPECT_EQ(tuned.memory.gradients, 4 * tuned.trained);
  EXPECT_EQ(tuned.memory.student, one.memory.student + 4 * tuned.trained) << "what lies beneath, and the adapters";
  EXPECT_LT(adapters.student_flops, 0.8 * one.student_flops) << "no products for gradients of frozen weights";
  EXPECT_LT(adapters.disk, one.disk / 2);
  EXPECT_GT(tuned.disk, adapters.disk);
  // Merged into projections, they make them the student's own.
  EXPECT_GT(two.memory.student, one.memory.student);
  measure_recipe(recipe, distill_test::teacher_config(), {"RAM", 1e12}, "r.yaml", plan);
  EXPECT_GT(plan.stages[2].seconds, 0);
}

TEST_F(RecipeLora, MistakesAreNamed) {
  const auto message = [&](const std::vector<std::string>& set) { return error_of([&] { run(config("b", set)); }); };
  EXPECT_EQ(message({"stages[0].lora.rank=2"}),
            "r.yaml: stages[0]: lora: found a stage that changes 1 layer, expected one that changes none, such as one that "
            "comes from it");
  EXPECT_EQ(message({"stages[1].from=adapters"}),
            "r.yaml: stages[1]: from: found \"adapters\", expected teacher or an earlier stage");
  EXPECT_EQ(message({"stages[1].lora.export=adapters", "stages[2].from=tuned"}),
            "r.yaml: stages[2]: lora: found adapters on tuned, whose lora.export is adapters; expected merged there");
  EXPECT_NE(message({"stages[1].lora.targets=[q_prj]"}).find("r.yaml: stage tuned: lora.targets: found \"q_prj\""),
            std::string::npos);
  EXPECT_FALSE(fs::exists(folder / "b/one"));
}

}  // namespace molt::recipe_lora_test
