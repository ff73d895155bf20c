#include "distill/recipe.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "distill/plan.h"
#include "distill/support.h"
#include "formats/hugging_face.h"

namespace molt::recipe_test {

using namespace distill_test;

// Four layers: one converted by leave-one-out, a second by replacement with matching before, then SFT, and a third as a branch.
constexpr const char* toy = R"(
seed: 3
data: {synthetic: {seed: 1}}
held_out: {test: {data: {synthetic: {seed: 2, split: test}}, tokens: 300}}
training: {steps: 4, micro_batch_tokens: 250, checkpoint_every: 2, log_every: 1, optimizer: {learning_rate: 1.0e-3}}
stages:
  - name: one
    mamba_layers: 1
    choose: {method: loo, held_out_tokens: 300}
    convert: {state_size: 8, dt_rank: 4}
    head: {distillation_model: teacher, distillation_loss_implementation: reverse_kl}
  - name: two
    from: one
    mamba_layers: 2
    choose: {method: mmr, candidates: 2, steps: 2, micro_batch_tokens: 200, held_out_tokens: 300}
    convert: {state_size: 8, dt_rank: 4}
    match: {steps: 3}
    head: {distillation_model: teacher}
  - {name: two-sft, from: two, mamba_layers: 2, training: {steps: 2}}
  - name: three
    from: two
    mamba_layers: 3
    choose: {method: list, layers: [3, 2, 1, 0]}
    convert: {state_size: 8, dt_rank: 4}
    head: {distillation_model: teacher, distillation_loss_implementation: forward_kl}
)";

class Recipe : public Folder {
 protected:
  Recipe() { write_folder(*teacher, folder / "teacher"); }

  RecipeConfig config(const std::string& output, const std::vector<std::string>& more = {}) const {
    std::vector<std::string> set = {"teacher.pretrained.path=" + (folder / "teacher").string(),
                                    "output=" + (folder / output).string(), "device=cpu"};
    set.insert(set.end(), more.begin(), more.end());
    RecipeConfig config;
    parse_config(toy, "toy.yaml", set, [&](ConfigVisitor& v) { config.visit(v); });
    return config;
  }
  void run(const RecipeConfig& config, Changes changes = Changes::refuse) {
    run_recipe(config, {"toy.yaml", {{"molt", "test"}}, changes});
  }
  Json index(const std::string& output) { return read_json(folder / output / "recipe.json"); }
  // What a recipe leaves that does not depend on the clock.
  Json results(const std::string& output) {
    Json index = this->index(output);
    for (Json& stage : index["stages"]) stage.erase("seconds");
    return index;
  }

  std::unique_ptr<Model> teacher = new_teacher();
};

TEST_F(Recipe, RunsItsStagesAndBranchesAndLeavesAnIndex) {
  run(config("a", {"shard_size=1e-5"}));
  const Json result = index("a");
  ASSERT_EQ(result["stages"].size(), 4u);
  std::map<std::string, Json> stages;
  for (const Json& stage : result["stages"]) stages[stage["name"]] = stage;
  for (const auto& [name, stage] : stages) {
    EXPECT_EQ(stage["status"], "finished") << name;
    const auto model = load_model(folder / "a" / stage["export"].get<std::string>());
    EXPECT_EQ(Json(model->config().layout()), stage["layout"]) << name;
    EXPECT_EQ(model->config().num_layers() - std::ssize(attention_layers(model->config())), stage["mamba_layers"].get<int>());
    EXPECT_TRUE(fs::exists(folder / "a" / stage["run"].get<std::string>() / "metrics.jsonl"));
    EXPECT_TRUE(stage["evaluation"].contains("test.loss"));
    EXPECT_TRUE(fs::exists(folder / "a" / name / "export" / "tokenizer.json"));
    const Json own = read_json(folder / "a" / name / "export" / "scores.json");
    EXPECT_EQ(own["evaluation"], stage["evaluation"]);
    EXPECT_EQ(own["total_tokens"], stage["total_tokens"]);
    EXPECT_TRUE(fs::exists(folder / "a" / name / "export" / "model.safetensors.index.json"));
  }
  EXPECT_EQ(stages["one"]["ranking"], "one/ranking.json");
  EXPECT_EQ(stages["one"]["converted"], Json(std::vector{read_ranking(folder / "a/one/ranking.json").order.front()}));
  // The candidates of `two` are the least important of `one`'s ranking that are left.
  const auto order = read_ranking(folder / "a/one/ranking.json").order;
  std::vector<std::int64_t> candidates = read_ranking(folder / "a/two/ranking.json").order;
  std::sort(candidates.begin(), candidates.end());
  EXPECT_EQ(candidates, (std::vector<std::int64_t>{std::min(order[1], order[2]), std::max(order[1], order[2])}));
  EXPECT_FALSE(stages["two-sft"].contains("converted"));
  EXPECT_EQ(stages["two-sft"]["layout"], stages["two"]["layout"]);
  const auto total = [&](const char* name) { return stages[name]["total_tokens"].get<double>(); };
  const auto own = [&](const char* name) { return stages[name]["tokens"].get<double>(); };
  EXPECT_EQ(total("two"), own("one") + own("two"));
  EXPECT_EQ(total("three"), total("two") + own("three"));
  EXPECT_GT(own("two"), 1.2 * own("one"));  // matching counts
}

TEST_F(Recipe, AStageGoesOnInTheDataWhereTheOneBeforeItStopped) {
  run(config("a"));
  const auto position = [&](const char* run) {
    const auto checkpoints = fs::directory_iterator(folder / "a" / run / "checkpoints");
    std::int64_t newest = 0;
    for (const auto& entry : checkpoints) {
      newest = std::max(newest, read_json(entry.path() / "state.json")["data"]["sample"].get<std::int64_t>());
    }
    return newest;
  };
  EXPECT_GT(position("one/run"), 4);
  EXPECT_GT(position("two/match"), position("one/run"));
  EXPECT_GT(position("two/run"), position("two/match"));
  EXPECT_GT(position("three/run"), position("two/run"));
}

TEST_F(Recipe, WhatWasInterruptedAnywhereEndsAsIfItHadNotBeen) {
  run(config("whole"));
  run(config("cut"));
  // Undone step by step: what a stage leaves, from the last thing to the first.
  const fs::path stage = folder / "cut" / "two";
  const std::vector<std::function<void()>> undo = {
      [] {},
      [&] { fs::remove_all(stage / "export"); },
      [&] { fs::remove_all(stage / "run/checkpoints/00000004"); },
      [&] { fs::remove_all(stage / "run"); },
      [&] { fs::remove_all(stage / "match/checkpoints/00000003"); },
      [&] {
        Json ranking = read_json(stage / "ranking.json");
        ranking["layers"].erase(1);
        ranking["complete"] = false;
        write_json(stage / "ranking.json", ranking);
      },
  };
  for (std::size_t i = 0; i < undo.size(); ++i) {
    for (std::size_t j = 0; j <= i; ++j) undo[j]();
    Json before = index("cut");
    for (Json& entry : before["stages"]) {
      if (entry["name"] == "two") entry["status"] = "running";
    }
    write_json(folder / "cut/recipe.json", before);
    run(config("cut"));
    EXPECT_EQ(results("cut"), results("whole")) << i;
    for (const char* name : {"two", "three"}) {
      EXPECT_TRUE(same_weights(*load_model(folder / "cut" / name / "export"), *load_model(folder / "whole" / name / "export")))
          << i << " " << name;
    }
  }
}

TEST_F(Recipe, StagesAreMeasuredByPerplexity) {
  write_file(folder / "text.txt", "jan has 3 apples . ola has 2 times as many apples as jan . how many apples does ola have ?");
  RecipeConfig measured = config("a");
  measured.stages.resize(1);
  TaskConfig& task = measured.evaluate["prose"];
  task.name = "perplexity";
  task.data = (folder / "text.txt").string();
  run(measured);
  const Json result = index("a");
  const double before = result["teacher"]["scores"]["prose"]["perplexity"],
               after = result["stages"][0]["scores"]["prose"]["perplexity"];
  EXPECT_GT(before, 1);
  EXPECT_GT(after, 1);
  EXPECT_NE(after, before);
  EXPECT_TRUE(fs::exists(folder / "a/one/scores/prose/windows.jsonl"));
  EXPECT_NE(read_file(folder / "a/one/export/README.md").find("| prose | perplexity "), std::string::npos);
}

TEST_F(Recipe, AFinishedStageIsNotDoneAgainAndMustNotChange) {
  run(config("a"));
  const auto written = fs::last_write_time(folder / "a/three/export/model.safetensors");
  run(config("a"));
  EXPECT_EQ(fs::last_write_time(folder / "a/three/export/model.safetensors"), written);
  EXPECT_EQ(error_of([&] { run(config("a", {"stages[0].training.optimizer.learning_rate=0.5"})); }),
            (folder / "a/one/config.yaml").string() +
                ": the run that lies here began with other settings or files: stage.training.optimizer.learning_rate (here "
                "\"0.001\", now \"0.5\"); restore them to continue it, or choose another folder");
  EXPECT_EQ(error_of([&] { run(config("a", {"dtype=float32"})); }), "") << "which auto is on the CPU";
  const std::string narrower = error_of([&] { run(config("a", {"dtype=bfloat16"})); });
  EXPECT_NE(narrower.find("files: dtype (here \"float32\", now \"bfloat16\"); restore them to continue it (--dtype: auto is "),
            std::string::npos)
      << narrower;
  EXPECT_NE(error_of([&] { run(config("a", {"seed=4"})); }).find("seed (here \"3\", now \"4\")"), std::string::npos);
  write_folder(*new_teacher(4, 6), folder / "teacher");
  const std::string other = error_of([&] { run(config("a")); });
  EXPECT_NE(other.find(concat("the content of ", (folder / "teacher").string(), " in float32 (here ")), std::string::npos)
      << other;
}

// The stage under way goes on with the new settings from its last checkpoint; the one that is finished stays.
TEST_F(Recipe, AcceptedChangesActOnWhatIsNotFinished) {
  RecipeConfig whole = config("a");
  whole.stages.resize(2);
  run(whole);
  Json index = this->index("a");
  index["stages"][1]["status"] = "running";
  write_json(folder / "a/recipe.json", index);
  RecipeConfig longer = config("a", {"training.steps=6", "stages[1].choose.steps=3"});
  longer.stages.resize(2);
  const std::string error = error_of([&] { run(longer, Changes::offer); });
  EXPECT_NE(error.find("--accept-changes"), std::string::npos) << error;
  const auto first = fs::last_write_time(folder / "a/one/export/model.safetensors");

  testing::internal::CaptureStderr();
  run(longer, Changes::accept);
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("toy.yaml: stage one: is finished and stays as it was made: stage.training.steps (here \"4\", now \"6\")"),
            std::string::npos)
      << said;
  EXPECT_EQ(fs::last_write_time(folder / "a/one/export/model.safetensors"), first);
  EXPECT_TRUE(fs::exists(folder / "a/two/run/checkpoints/00000006"));
  EXPECT_EQ(this->index("a")["stages"][1]["converted"], index["stages"][1]["converted"]);
  EXPECT_NE(read_file(folder / "a/two/config.yaml").find("steps: 6"), std::string::npos);
  EXPECT_EQ(read_file(folder / "a/one/config.yaml").find("steps: 6"), std::string::npos);
}

TEST_F(Recipe, AnAcceptedChangeThatTheCheckpointDoesNotFitLeavesItWhereItIs) {
  RecipeConfig only = config("a");
  only.stages.resize(1);
  run(only);
  Json index = this->index("a");
  index["stages"][0]["status"] = "running";
  write_json(folder / "a/recipe.json", index);
  RecipeConfig other = config("a", {"stages[0].convert.state_size=4"});
  other.stages.resize(1);
  EXPECT_NE(error_of([&] { run(other, Changes::accept); }), "");
  run(only);
  EXPECT_EQ(this->index("a")["stages"][0]["status"], "finished");
}

TEST_F(Recipe, MistakesAreNamed) {
  const auto message = [&](const std::vector<std::string>& set) { return error_of([&] { run(config("b", set)); }); };
  EXPECT_EQ(message({"stages[1].from=oen"}),
            "toy.yaml: stages[1]: from: found \"oen\", expected teacher or an earlier stage (did you mean \"one\"?)");
  EXPECT_EQ(message({"stages[1].name=one"}), "toy.yaml: stages[1]: name: \"one\" is another stage's already");
  EXPECT_EQ(message({"stages[1].name=a/b"}),
            "toy.yaml: stages[1]: name: found \"a/b\", expected letters, digits, - and _, and not \"teacher\"");
  EXPECT_EQ(message({"stages[1].mamba_layers=0"}),
            "toy.yaml: stages[1]: mamba_layers: found 0, expected at least the 1 of one, from which it starts");
  EXPECT_EQ(message({"stages[3].mamba_layers=9"}),
            "toy.yaml: stage three: mamba_layers: found 9, expected at most 4, the attention layers of the teacher");
  EXPECT_EQ(message({"stages[1].choose.candidates=1", "stages[1].mamba_layers=3", "stages[2].mamba_layers=3"}),
            "toy.yaml: stages[1]: choose.candidates: found 1, expected at least the 2 layers that are converted");
  EXPECT_NE(message({"stages[0].head.distillation_model=big"}).find("expected teacher, or nothing"), std::string::npos);
  const std::string sizes = message({"stages[1].convert.dt_rank=2"});  // one's layers have 4
  EXPECT_NE(sizes.find("toy.yaml: stage two: convert: "), std::string::npos) << sizes;
  EXPECT_NE(sizes.find("dt_rank"), std::string::npos) << sizes;
  EXPECT_EQ(message({"output="}), "toy.yaml: output: missing, expected a folder");
  EXPECT_NE(message({"output=" + (folder / "teacher").string()}).find("the folder of a model"), std::string::npos);
  EXPECT_FALSE(fs::exists(folder / "teacher/recipe.json"));
  EXPECT_NE(message({"stages[0].convert.state_size=7"}).find("toy.yaml: stage one: convert: layer 3: "), std::string::npos);
  EXPECT_FALSE(fs::exists(folder / "b/one"));
}

TEST_F(Recipe, AnIndexOfOtherThingsIsNamed) {
  for (const char* text : {"{\"teacher\": {}, \"stages\": [3]}", "{\"teacher\": 1, \"stages\": []}", "[]"}) {
    fs::create_directories(folder / "a");
    write_file(folder / "a/recipe.json", text);
    EXPECT_EQ(error_of([&] { run(config("a")); }), (folder / "a/recipe.json").string() + ": found no index of a recipe's stages");
  }
}

TEST_F(Recipe, AStageRestoresLayersAndTrainsWhatItIsTold) {
  RecipeConfig swap = config("swap");
  swap.evaluate.clear();
  swap.stages.resize(2);
  StageConfig &first = swap.stages[0], &second = swap.stages[1];
  first.mamba_layers = 3;
  first.choose.method = "list";
  first.choose.layers = {3, 1, 2};
  first.training.trainable = {"layers.*.mixers.mamba.*"};
  second.mamba_layers = 2;  // two of three restored, and layer 0 converted
  second.restore = {3, 1};
  second.choose.method = "list";
  second.choose.layers = {3, 1, 0};
  second.match.reset();
  second.training.trainable = {"*"};
  run(swap);
  const Json stages = index("swap")["stages"];
  EXPECT_EQ(stages[0]["layout"], Json({"t", "m2", "m2", "m2"}));
  EXPECT_EQ(stages[1]["restored"], Json({3, 1}));
  EXPECT_EQ(stages[1]["converted"], Json(std::vector<int>{0}));
  EXPECT_EQ(stages[1]["layout"], Json({"m2", "t", "m2", "t"}));
  const auto one = load_model(folder / "swap/one/export"), two = load_model(folder / "swap/two/export");
  EXPECT_EQ(Json(two->config().layout()), stages[1]["layout"]);
  // Only the new mixers trained at first, everything afterwards.
  EXPECT_EQ(difference(parameter(*one, "layers.1.mlp.down.weight"), parameter(*teacher, "layers.1.mlp.down.weight")), 0);
  EXPECT_GT(difference(parameter(*two, "layers.1.mlp.down.weight"), parameter(*teacher, "layers.1.mlp.down.weight")), 0);
  const double moved = difference(parameter(*two, "layers.3.mixers.attention.qkv.weight"),
                                  parameter(*teacher, "layers.3.mixers.attention.qkv.weight"));
  EXPECT_GT(moved, 0);
  EXPECT_LT(moved, 0.02);  // four small steps from the teacher's
  EXPECT_NE(read_file(folder / "swap/two/export/README.md").find("layers 3, 1 became the teacher's attention again"),
            std::string::npos);

  const auto message = [&](const std::vector<std::string>& set) { return error_of([&] { run(config("b", set)); }); };
  EXPECT_EQ(message({"stages[1].restore=[0, 1]", "stages[1].mamba_layers=0"}),
            "toy.yaml: stages[1]: restore: found 2 layers, expected at most the 1 Mamba layer of one, from which it starts");
  EXPECT_EQ(message({"stages[1].restore=[7]", "stages[1].mamba_layers=2"}),
            "toy.yaml: stage two: restore: found layer 7, expected 0 to 3");
}

TEST_F(Recipe, TheListNamesTheLayers) {
  RecipeConfig only = config("c");
  only.stages = {only.stages[3]};
  only.stages[0].from = "teacher";
  only.stages[0].mamba_layers = 2;
  only.stages[0].choose.layers = {2, 0, 1};
  run(only);
  EXPECT_EQ(index("c")["stages"][0]["converted"], Json({2, 0}));
  only.output = (folder / "d").string();
  only.stages[0].choose.layers = {2};
  EXPECT_EQ(error_of([&] { run(only); }),
            "toy.yaml: stage three: choose: found 1 layer that is still attention, expected 2 to choose from");
}

}  // namespace molt::recipe_test
