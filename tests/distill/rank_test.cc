#include "distill/rank.h"

#include <ATen/Functions.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/interrupt.h"
#include "distill/objective.h"
#include "distill/paired.h"
#include "distill/support.h"

namespace molt::rank_test {

using namespace distill_test;

class Rank : public Folder {
 protected:
  RankConfig config(const std::vector<std::string>& set) const {
    RankConfig config;
    parse_config("data: {synthetic: {seed: 3}}\nheld_out_tokens: 500\nmicro_batch_tokens: 200\n", "rank.yaml", set,
                 [&](ConfigVisitor& v) { config.visit(v); });
    config.mixer = mamba();
    return config;
  }
  Ranking rank(const RankConfig& config, const std::string& name) {
    return rank_layers(config, {*model, teacher, tokenizer(), "test"}, folder / name);
  }
  static double score(const Ranking& ranking, std::int64_t layer) {
    for (const LayerFigure& figure : ranking.layers) {
      if (figure.layer == layer) return figure.score;
    }
    return NAN;
  }

  std::shared_ptr<Model> teacher = new_teacher();
  std::unique_ptr<Model> model = teacher->share();
};

TEST_F(Rank, ALayerThatDoesNothingIsTheLeastImportant) {
  parameter(*model, "layers.2.mixers.attention.o_proj.weight").zero_();
  parameter(*model, "layers.2.mlp.down.weight").zero_();
  const Ranking ranking = rank(config({"method=loo"}), "loo.json");
  EXPECT_NEAR(score(ranking, 2), 0, 1e-9);
  for (const LayerFigure& figure : ranking.layers) {
    EXPECT_EQ(figure.standard_error > 1e-9, figure.layer != 2) << figure.layer;
  }
  EXPECT_EQ(ranking.layers.size(), 4u);
}

TEST_F(Rank, LeavingOutIsTheRiseOfTheLossOfTheWholeModel) {
  parameter(*model, "layers.1.mixers.attention.o_proj.weight").zero_();
  const auto source = open_source(config({}).data, tokenizer(), model->config().vocabulary, 0, "data");
  const std::vector<PackedBatch> batches = held_out_batches(*source, 500, 200);
  for (const char* scope : {"layer", "mixer"}) {
    const Ranking ranking = rank(config({concat("scope=", scope)}), concat(scope, ".json"));
    const auto loss = [&] {
      double sum = 0, weight = 0;
      for (const PackedBatch& batch : batches) {
        const Objective::Loss part = NextToken().loss(*model, batch, Recompute::none);
        sum += part.sum.item<double>();
        weight += part.weight;
      }
      return sum / weight;
    };
    const double whole = loss();
    for (std::int64_t layer = 0; layer < 4; ++layer) {
      model->blocks[static_cast<std::size_t>(layer)].bypass = scope == std::string("layer") ? Bypass::block : Bypass::mixer;
      EXPECT_NEAR(score(ranking, layer), loss() - whole, 1e-5) << scope << " " << layer;
      model->blocks[static_cast<std::size_t>(layer)].bypass = Bypass::none;
    }
    if (scope == std::string("mixer")) {
      EXPECT_NEAR(score(ranking, 1), 0, 1e-6);
    }
  }
}

TEST_F(Rank, ReplacementScoresEachCandidateAndLearns) {
  const Ranking ranking =
      rank(config({"method=mmr", "steps=12", "layers=[0, 2, 3]", "optimizer.learning_rate=1.0e-2"}), "mmr.json");
  const Json file = read_json(folder / "mmr.json");
  EXPECT_EQ(file["baseline"]["score"].get<double>(), 0);  // the model is the teacher
  for (const Json& layer : file["layers"]) {
    EXPECT_LT(layer["score"].get<double>(), layer["initial"].get<double>()) << layer["layer"];
    EXPECT_EQ(layer["curve"].size(), 12u);
    const std::string prefix = concat("layers.", layer["layer"].get<int>(), ".mixers.");
    std::int64_t mixer = 0;
    auto student = teacher->share();
    convert_layers(*student, *teacher, {layer["layer"].get<std::int64_t>()}, mamba(), 0, "x");
    for (const Parameter& each : student->parameters()) mixer += each.name.starts_with(prefix) ? each.value.numel() : 0;
    EXPECT_EQ(layer["trained_parameters"].get<std::int64_t>(), mixer);
  }
  EXPECT_TRUE(same_weights(*model, *teacher));
  EXPECT_EQ(ranking.order.size(), 3u);
}

TEST_F(Rank, AnInterruptedRankingEndsAsAnUninterruptedOne) {
  for (const std::vector<std::string>& set : {std::vector<std::string>{"method=loo"}, {"method=mmr", "steps=3"}}) {
    rank(config(set), "whole.json");
    Json cut = read_json(folder / "whole.json");
    cut["layers"].erase(cut["layers"].begin() + 1, cut["layers"].begin() + 3);
    cut["complete"] = false;
    write_json(folder / "cut.json", cut);
    EXPECT_EQ(error_of([&] { read_ranking(folder / "cut.json"); }),
              (folder / "cut.json").string() + ": found no finished ranking");
    rank(config(set), "cut.json");
    EXPECT_EQ(read_json(folder / "cut.json"), read_json(folder / "whole.json")) << set.front();
    EXPECT_EQ(read_ranking(folder / "cut.json").order, read_ranking(folder / "whole.json").order);
    fs::remove(folder / "whole.json");
  }
}

TEST_F(Rank, AnotherConfigurationOrModelIsRefused) {
  rank(config({"layers=[1]"}), "a.json");
  const std::string path = (folder / "a.json").string();
  EXPECT_EQ(error_of([&] { rank(config({"layers=[1]", "scope=mixer"}), "a.json"); }),
            path +
                ": holds a ranking with another configuration: scope (there \"layer\", now \"mixer\"); restore it to continue, "
                "or choose another file");
  parameter(*model, "layers.0.mlp_norm.weight").mul_(1.5);
  EXPECT_EQ(error_of([&] { rank(config({"layers=[1]"}), "a.json"); }),
            path + ": holds a ranking of another model; choose another file");
}

TEST_F(Rank, MistakesAreNamed) {
  EXPECT_EQ(error_of([&] { rank(config({"layers=[4]"}), "b.json"); }), "test: layers: found 4, expected 0 to 3");
  EXPECT_EQ(error_of([&] { rank(config({"layers=[1, 1]"}), "b.json"); }), "test: layers: 1 is named twice");
  EXPECT_NE(error_of([&] {
              rank(config({"method=mmr", "steps=1", "trainable=[\"layers.{layer}.mixer.*\"]"}), "b.json");
            }).find("test: trainable: found \"layers.0.mixer.*\", which no parameter's name matches"),
            std::string::npos);
  const std::string steps = error_of([&] { config({"method=mmr", "steps=0"}); });
  EXPECT_NE(steps.find("steps: found 0, expected a number from 1 up"), std::string::npos) << steps;
}

TEST(SequenceSums, TheStandardErrorOfAMeanOverSequences) {
  SequenceSums sums;
  sums.add(at::arange(5, at::kFloat), PackedBatch::of({{{1, 2, 3}, {}}, {{4, 5}, {}}}));
  EXPECT_EQ(sums.sums, (std::vector<double>{0 + 1, 3}));  // a sequence's last token has no target
  EXPECT_EQ(sums.weights, (std::vector<double>{2, 1}));
  EXPECT_NEAR(sums.mean(), 4.0 / 3, 1e-12);
  // Residuals 1 - 2 * 4/3 and 3 - 4/3.
  EXPECT_NEAR(sums.standard_error(), std::sqrt(2 * 2 * (5.0 / 3) * (5.0 / 3)) / 3, 1e-12);
  EXPECT_EQ(sums.minus(sums).mean(), 0);
}

}  // namespace molt::rank_test
