#include "report/collect.h"

#include <gtest/gtest.h>

#include "report/run_folders.h"
#include "report/tables.h"

namespace molt::report {

using testing_report::RunFolders;

namespace collect_tests {

class Collect : public RunFolders {};

TEST_F(Collect, ReadsARecipeThatStillRuns) {
  write_recipe();
  const Collection found = collect({folder / "recipe"});
  EXPECT_EQ(found.title, "tiny");
  ASSERT_EQ(found.checkpoints.size(), 4u);
  EXPECT_EQ(found.teacher()->name, "teacher");
  EXPECT_EQ(found.tasks(), std::vector<std::string>{"synthetic"});

  const Checkpoint& loo = found.checkpoints[1];
  EXPECT_EQ(loo.name, "loo-1");
  EXPECT_EQ(loo.mamba_layers(), 1);
  EXPECT_EQ(loo.converted, std::vector<std::int64_t>{2});
  EXPECT_DOUBLE_EQ(*loo.tokens, 40000);
  EXPECT_DOUBLE_EQ(*loo.loss, 0.0625);
  EXPECT_EQ(loo.objective, "reverse_kl");
  EXPECT_DOUBLE_EQ(loo.scores.at("synthetic").accuracy, 0.95);
  EXPECT_TRUE(loo.sample->correct);

  // The running stage's figures come from its metrics, of which the last line is torn; tokens go on from the stage before.
  const Checkpoint& sft = found.checkpoints[3];
  EXPECT_EQ(sft.status, "running");
  EXPECT_DOUBLE_EQ(*sft.tokens, 102000);
  EXPECT_DOUBLE_EQ(*sft.loss, 1.25);
  EXPECT_EQ(sft.objective, "cross_entropy");

  ASSERT_EQ(found.curves.size(), 2u);
  EXPECT_EQ(found.curves[0].training.size(), 2u);
  ASSERT_EQ(found.curves[0].held_out.at("test").size(), 1u);
  EXPECT_DOUBLE_EQ(found.curves[0].held_out.at("test")[0].tokens, 20000);
  EXPECT_EQ(found.curves[1].training.size(), 1u);

  ASSERT_EQ(found.rankings.size(), 1u);
  const LayerRanking& ranking = found.rankings[0];
  ASSERT_EQ(ranking.layers.size(), 3u);
  EXPECT_EQ(ranking.layers[0].layer, 2);
  EXPECT_EQ(ranking.layers[2].layer, 1);
  EXPECT_EQ(ranking.chosen, std::vector<std::int64_t>{2});
  EXPECT_TRUE(ranking.complete);
}

TEST_F(Collect, JoinsThroughputAndEvaluationsByPath) {
  write_recipe();
  write_throughput();
  write("more/x/gsm8k/evaluation.json",
        concat(R"({"task": "gsm8k", "items": 4, "model": ")", (folder / "recipe/mmr-2/export").string(), "\"}"));
  write("more/x/gsm8k/score.json", R"({"accuracy": 0.5, "standard_error": 0.25, "items": 4, "correct": 2})");
  write("more/y/perplexity/evaluation.json",
        concat(R"({"task": "perplexity", "model": ")", (folder / "teacher").string(), "\"}"));
  write("more/y/perplexity/score.json", R"({"task": "perplexity", "perplexity": 12.5, "standard_error": 0.02})");
  // Goes on still: not a score yet.
  write("more/y/gsm8k/evaluation.json",
        concat(R"({"task": "gsm8k", "items": 4, "model": ")", (folder / "teacher").string(), "\"}"));
  write("more/y/gsm8k/samples.jsonl", R"({"id": "1", "prompt": "q", "expected": "1", "compl)");
  const Collection found = collect({folder / "bench.json", folder / "more", folder / "recipe"});
  ASSERT_EQ(found.checkpoints.size(), 4u);
  EXPECT_DOUBLE_EQ(found.checkpoints[2].scores.at("gsm8k").accuracy, 0.5);
  EXPECT_FALSE(found.checkpoints[0].scores.contains("gsm8k"));
  ASSERT_EQ(found.texts(), std::vector<std::string>{"perplexity"});
  EXPECT_DOUBLE_EQ(found.checkpoints[0].perplexities.at("perplexity").value, 12.5);
  EXPECT_DOUBLE_EQ(found.checkpoints[0].perplexities.at("perplexity").standard_error, 0.25) << "of the loss: 0.02";
  const Table table = checkpoint_table(found);
  const auto column = std::find_if(table.columns.begin(), table.columns.end(),
                                   [](const auto& each) { return each.title == "perplexity, perplexity"; });
  ASSERT_NE(column, table.columns.end());
  EXPECT_EQ(table.rows[0][static_cast<std::size_t>(column - table.columns.begin())], "12.50 ± 0.25");

  const Setting setting = *main_setting(found);
  EXPECT_EQ(setting.words(), "decode, batch 8, context 8,192");
  EXPECT_DOUBLE_EQ(measured(found.checkpoints[2], setting)->median, 800);
  EXPECT_DOUBLE_EQ(*ratio_to_teacher(found, found.checkpoints[1], setting), 1.48);
  EXPECT_FALSE(ratio_to_teacher(found, found.checkpoints[3], setting));
}

TEST_F(Collect, JoinsPathsOfAnotherPlaceByTheirEnds) {
  write_recipe();
  const std::string row = R"([{"model": "/elsewhere/recipe/mmr-2/export", "work": "prefill", "context": 64, "batch": 1,
    "tokens_per_second": 5, "lowest": 4, "highest": 6, "ratio": 1, "cache_bytes": 1}])";
  write("bench.json", row);
  const Collection found = collect({folder / "recipe", folder / "bench.json"});
  ASSERT_EQ(found.checkpoints.size(), 4u);
  EXPECT_EQ(found.checkpoints[2].throughput.size(), 1u);
}

TEST_F(Collect, RatiosAreOfOneBenchmarkOnly) {
  write_recipe();
  write_throughput();
  write("later.json", concat(R"([{"model": ")", (folder / "recipe/sft-2").string(),
                             R"(", "work": "decode", "context": 8192, "batch": 8, "tokens_per_second": 5000, "lowest": 1,
                                "highest": 9000, "ratio": 1, "cache_bytes": 1}])"));
  const Collection found = collect({folder / "recipe", folder / "bench.json", folder / "later.json"});
  EXPECT_FALSE(ratio_to_teacher(found, found.checkpoints[3], *main_setting(found)));
  EXPECT_TRUE(ratio_to_teacher(found, found.checkpoints[2], *main_setting(found)));
}

TEST_F(Collect, ReadsATrainingRunAlone) {
  write("run/metrics.jsonl", R"({"step":1,"tokens":100,"loss":2.5})"
                             "\n"
                             R"({"step":2,"tokens":200,"loss":null})"
                             "\n"
                             R"({"step":3,"tokens":300,"loss":1.5})"
                             "\n");
  write("run/checkpoints/00000009/export/config.json", R"({"num_hidden_layers": 2})");
  write("run/checkpoints/00000010/export/config.json", R"({"num_hidden_layers": 2, "hybrid_block_layout": ["m2", "t"]})");
  const Collection found = collect({folder / "run"});
  ASSERT_EQ(found.checkpoints.size(), 1u);
  EXPECT_EQ(found.checkpoints[0].name, "run");
  EXPECT_EQ(found.checkpoints[0].layout, (std::vector<std::string>{"m2", "t"}));
  EXPECT_DOUBLE_EQ(*found.checkpoints[0].tokens, 300);
  EXPECT_EQ(found.curves[0].training.size(), 2u);
  EXPECT_EQ(found.title, "run");
}

TEST_F(Collect, AdaptersHaveTheLayersOfTheirBase) {
  write("run/metrics.jsonl", "{\"step\":1,\"tokens\":100,\"loss\":2.5}\n");
  write("run/checkpoints/00000001/export/adapter_config.json",
        concat("{\"base_model_name_or_path\": \"", (folder / "base").string(), "\"}"));
  EXPECT_TRUE(collect({folder / "run"}).checkpoints.at(0).layout.empty());
  write("base/config.json", R"({"num_hidden_layers": 2, "hybrid_block_layout": ["t", "m2"]})");
  EXPECT_EQ(collect({folder / "run"}).checkpoints.at(0).layout, (std::vector<std::string>{"t", "m2"}));
}

TEST_F(Collect, ThinsLongRuns) {
  std::string lines;
  for (int step = 1; step <= 10000; ++step)
    lines += concat(R"({"step":)", step, R"(,"tokens":)", 10 * step, R"(,"loss":2})", "\n");
  write("run/metrics.jsonl", lines);
  const Collection found = collect({folder / "run"});
  EXPECT_LE(found.curves[0].training.size(), 400u);
  EXPECT_DOUBLE_EQ(found.curves[0].training.back().tokens, 100000);
  EXPECT_DOUBLE_EQ(found.curves[0].training.front().loss, 2);
}

TEST_F(Collect, NamesTwoRecipesStagesApart) {
  write_recipe();
  fs::copy(folder / "recipe", folder / "again", fs::copy_options::recursive);
  const Collection found = collect({folder / "recipe", folder / "again", folder / "recipe"});
  ASSERT_EQ(found.checkpoints.size(), 7u);
  EXPECT_EQ(found.checkpoints[4].name, "again/loo-1");
  EXPECT_EQ(found.checkpoints[5].from, "again/loo-1");
}

TEST_F(Collect, NamesWhatIsBroken) {
  EXPECT_NE(error_of([&] { collect({folder / "nothing"}); }).find("nothing: no such file or folder"), std::string::npos);
  fs::create_directories(folder / "empty");
  EXPECT_NE(error_of([&] { collect({folder / "empty"}); }).find("found no recipe.json"), std::string::npos);

  write("run/metrics.jsonl", "{\"step\":1,\"tokens\":1,\"loss\":2}\n{\"step\":oops}\n{\"step\":3,\"tokens\":3,\"loss\":1}\n");
  testing::internal::CaptureStderr();
  EXPECT_EQ(collect({folder / "run"}).curves.at(0).training.size(), 2u);
  EXPECT_NE(testing::internal::GetCapturedStderr().find("metrics.jsonl:2:9: "), std::string::npos);
  write("run/metrics.jsonl", "{\"step\":1,\"loss\":2}\n");
  EXPECT_NE(error_of([&] { collect({folder / "run"}); }).find("metrics.jsonl:1: tokens: missing"), std::string::npos);

  write_recipe();
  write("recipe/loo-1/ranking.json", R"({"method": "loo", "layers": [{"layer": 0, "score": "high"}]})");
  EXPECT_NE(error_of([&] { collect({folder / "recipe"}); }).find("ranking.json: layers[0]: score: found \"high\""),
            std::string::npos);
  write("recipe/recipe.json", R"({"teacher": {}, "stages": [{"name": "../../etc"}]})");
  EXPECT_NE(error_of([&] { collect({folder / "recipe"}); }).find("stages[0]: name: found \"../../etc\""), std::string::npos);
  write("recipe/recipe.json", "[]");
  EXPECT_NE(error_of([&] { collect({folder / "recipe"}); }).find("recipe.json: expected an object"), std::string::npos);
  write("bench.json", R"([{"model": "a", "work": "sleep"}])");
  EXPECT_NE(error_of([&] { collect({folder / "bench.json"}); }).find("[0]: work: found \"sleep\""), std::string::npos);
}

}  // namespace collect_tests

}  // namespace molt::report
