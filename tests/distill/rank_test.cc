#include "distill/rank.h"

#include <ATen/Functions.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "base/random.h"
#include "distill/objective.h"
#include "distill/paired.h"
#include "distill/support.h"
#include "train/checkpoint.h"

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
  // Of the methods that measure nothing.
  static RankConfig order_config(const std::vector<std::string>& set) {
    RankConfig config;
    parse_config("", "rank.yaml", set, [&](ConfigVisitor& v) { config.visit(v); });
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

TEST_F(Rank, WhatRestoringALayerSavesIsTheDivergenceWithoutAndWithIt) {
  // The attention of layer 2 gives nothing, and so does the mixer that is made of it.
  parameter(*model, "layers.2.mixers.attention.o_proj.weight").zero_();
  const std::pair<std::vector<std::string>, ops::LossMix> divergences[] = {
      {{"distillation_loss_implementation=reverse_kl"}, {.reverse_kl = 1}},
      {{"distillation_loss_implementation=jsd", "distillation_jsd_beta=0.3"}, {.jsd = 1, .beta = 0.3}},
      {{"distillation_loss_mix.reverse_kl=0.5", "distillation_loss_mix.jsd=2", "distillation_temperature=2"},
       {.reverse_kl = 0.5, .jsd = 2, .temperature = 2}}};
  for (const auto& [set, mix] : divergences) {
    const std::string name = set.front();
    std::vector<std::string> whole = {"method=kl", "student_steps=0", "steps=0"};
    whole.insert(whole.end(), set.begin(), set.end());
    const RankConfig untrained = config(whole);
    const Ranking ranking = rank(untrained, name + ".json");
    EXPECT_NEAR(score(ranking, 2), 0, 1e-9) << name;
    const Json file = read_json(folder / (name + ".json"));
    EXPECT_FALSE(fs::exists(folder / (name + "_student")));

    const std::vector<std::int64_t> all = {0, 1, 2, 3};
    Distillation distillation(teacher, mix);
    const auto source = open_source(untrained.data, tokenizer(), model->config().vocabulary, 0, "data");
    const std::vector<PackedBatch> batches = held_out_batches(*source, 500, 200);
    const auto divergence = [&](const std::vector<std::int64_t>& restored) {
      const auto student = teacher->share();
      convert_layers(*student, *teacher, all, mamba(), derive_seed(0, "kl"), "x");
      restore_layers(*student, *teacher, restored, "x");
      double sum = 0, weight = 0;
      for (const PackedBatch& batch : batches) {
        const Objective::Loss part = distillation.loss(*student, batch, Recompute::none);
        sum += part.sum.item<double>();
        weight += part.weight;
      }
      return sum / weight;
    };
    const double none = divergence({});
    EXPECT_NEAR(file["baseline"]["kl"].get<double>(), none, 1e-6) << name;
    for (const std::int64_t layer : all) EXPECT_NEAR(score(ranking, layer), none - divergence({layer}), 1e-6) << name << layer;
    for (const LayerFigure& figure : ranking.layers) {
      EXPECT_EQ(figure.standard_error > 1e-9, figure.layer != 2) << name << figure.layer;
    }
  }
  EXPECT_TRUE(same_weights(*model, *teacher));
}

TEST_F(Rank, CandidatesAndTheStudentTrainByAnyDivergence) {
  // The figure that holds what training left of the divergence.
  for (const auto& [method, divergence] : {std::pair("mmr", "score"), std::pair("kl", "kl")}) {
    const std::vector<std::string> set = {concat("method=", method), "layers=[1, 3]", "steps=12",
                                          "optimizer.learning_rate=1.0e-2", "distillation_loss_implementation=jsd"};
    RankConfig by_jsd = config(set);
    by_jsd.student_steps = 2;
    rank(by_jsd, concat(method, ".json"));
    const Json ranking = read_json(folder / concat(method, ".json"));
    for (const Json& layer : ranking["layers"]) {
      EXPECT_LT(layer[divergence].get<double>(), layer["initial"].get<double>()) << method;
      EXPECT_LT(layer["curve"].front()[1].get<double>(), std::log(2.0)) << "no JSD is larger than log 2";
    }
  }
  EXPECT_NE(read_file(folder / "kl_student/events.jsonl").find(R"("objective":"jsd")"), std::string::npos);
}

TEST_F(Rank, TheStudentOfAllCandidatesLearnsAndSoDoesEachCandidate) {
  const std::vector<std::string> set = {"method=kl", "layers=[0, 2, 3]", "optimizer.learning_rate=1.0e-2"};
  const auto more = [&](std::vector<std::string> rest) {
    rest.insert(rest.begin(), set.begin(), set.end());
    return config(rest);
  };
  rank(more({"student_steps=0", "steps=0"}), "untrained.json");
  rank(more({"student_steps=12", "steps=3"}), "trained.json");
  // Matching the mixers first brings the student closer.
  rank(more({"match_steps=12", "student_steps=0", "steps=0"}), "matched.json");
  EXPECT_TRUE(fs::exists(folder / "matched_student_match/metrics.jsonl"));
  EXPECT_LT(read_json(folder / "matched.json")["baseline"]["kl"].get<double>(),
            read_json(folder / "untrained.json")["baseline"]["kl"].get<double>());
  const Json untrained = read_json(folder / "untrained.json"), trained = read_json(folder / "trained.json");
  EXPECT_LT(trained["baseline"]["initial"].get<double>(), untrained["baseline"]["kl"].get<double>());
  EXPECT_LT(trained["baseline"]["kl"].get<double>(), trained["baseline"]["initial"].get<double>());
  EXPECT_EQ(trained["baseline"]["student"], "trained_student");
  for (const Json& layer : trained["layers"]) {
    EXPECT_EQ(layer["curve"].size(), 3u);
    EXPECT_LT(layer["kl"].get<double>(), layer["initial"].get<double>()) << layer["layer"];
    EXPECT_NEAR(layer["score"].get<double>(), trained["baseline"]["kl"].get<double>() - layer["kl"].get<double>(), 1e-12);
    // Two of three new mixers are left to train.
    EXPECT_EQ(layer["trained_parameters"].get<std::int64_t>() * 3,
              trained["baseline"]["trained_parameters"].get<std::int64_t>() * 2);
  }
}

TEST_F(Rank, GreedyRanksTheOthersAgainAfterEachPick) {
  const std::vector<std::string> once = {"method=kl", "student_steps=4", "steps=0", "optimizer.learning_rate=1.0e-2"};
  std::vector<std::string> again = once;
  again.emplace_back("greedy=true");
  rank(config(once), "once.json");
  const Ranking ranking = rank(config(again), "greedy.json");
  const Json first = read_json(folder / "once.json"), file = read_json(folder / "greedy.json");
  ASSERT_EQ(file["rounds"].size(), 4u);
  EXPECT_EQ(file["rounds"][0]["candidates"], first["layers"]);
  double base = file["baseline"]["kl"].get<double>();
  std::vector<std::int64_t> picked;
  for (const Json& round : file["rounds"]) {
    EXPECT_EQ(round["candidates"].size(), 4 - picked.size());
    double best = -INFINITY, left = 0;
    for (const Json& candidate : round["candidates"]) {
      EXPECT_NEAR(candidate["score"].get<double>(), base - candidate["kl"].get<double>(), 1e-12);
      if (candidate["score"].get<double>() <= best) continue;
      best = candidate["score"].get<double>();
      left = candidate["kl"].get<double>();
    }
    picked.push_back(round["picked"].get<std::int64_t>());
    EXPECT_EQ(best, score(ranking, picked.back()));
    base = left;
  }
  EXPECT_NEAR(base, 0, 1e-9);  // all restored: the teacher
  std::reverse(picked.begin(), picked.end());
  EXPECT_EQ(ranking.order, picked);
}

TEST_F(Rank, OrdersThatNothingIsMeasuredFor) {
  const auto order = [&](const std::vector<std::string>& set, const std::string& name) {
    return rank(order_config(set), name).order;
  };
  using Order = std::vector<std::int64_t>;
  EXPECT_EQ(order({"method=list", "layers=[3, 0, 1]"}, "list.json"), (Order{3, 0, 1}));
  const Order drawn = order({"method=random", "seed=1"}, "random.json");
  EXPECT_TRUE(std::is_permutation(drawn.begin(), drawn.end(), (Order{0, 1, 2, 3}).begin()));
  std::set<Order> seeds;
  for (int seed = 0; seed < 8; ++seed) seeds.insert(order({"method=random", concat("seed=", seed)}, concat(seed, ".json")));
  EXPECT_GT(seeds.size(), 4u);
  EXPECT_TRUE(seeds.contains(drawn));

  model = new_teacher(12);
  EXPECT_EQ(order({"method=uniform", "count=4"}, "four.json"), (Order{1, 4, 7, 10, 6, 3, 9, 0, 2, 8, 5, 11}));
  EXPECT_EQ(order({"method=uniform", "count=12"}, "all.json"), (Order{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}));
  EXPECT_EQ(order({"method=uniform", "layers=[2, 3, 8]"}, "three.json"), (Order{3, 2, 8}));
  // With whatever number is converted, no stretch of attention is much longer than another.
  const Order spread = order({"method=uniform"}, "spread.json");
  for (std::size_t count = 1; count < 12; ++count) {
    Order taken(spread.begin(), spread.begin() + static_cast<std::ptrdiff_t>(count));
    std::sort(taken.begin(), taken.end());
    taken.push_back(12);
    std::int64_t last = 0, longest = 0, shortest = 12;
    for (const std::int64_t layer : taken) {
      longest = std::max(longest, layer - last);
      shortest = std::min(shortest, layer - last);
      last = layer;
    }
    EXPECT_LE(longest, 2 * shortest + 2) << count;
  }
}

TEST_F(Rank, AnInterruptedRankingEndsAsAnUninterruptedOne) {
  for (const std::vector<std::string>& set : {std::vector<std::string>{"method=loo"},
                                              {"method=mmr", "steps=3"},
                                              {"method=kl", "match_steps=2", "student_steps=3", "steps=2"}}) {
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

TEST_F(Rank, AGreedyRankingInterruptedAnywhereEndsAsAnUninterruptedOne) {
  const RankConfig greedy = config({"method=kl", "student_steps=4", "steps=1", "greedy=true"});
  rank(greedy, "whole.json");
  const Json whole = read_json(folder / "whole.json");
  const auto continued = [&](const std::string& what) {
    rank(greedy, "cut.json");
    EXPECT_EQ(read_json(folder / "cut.json")["rounds"], whole["rounds"]) << what;
    EXPECT_EQ(read_json(folder / "cut.json")["ranking"], whole["ranking"]) << what;
    EXPECT_EQ(read_json(folder / "cut.json")["layers"], whole["layers"]) << what;
  };
  // As a killed process leaves it: some rounds, and of the last one some candidates or the pick that was not made yet.
  for (std::size_t rounds = 0; rounds < 4; ++rounds) {
    for (const std::size_t candidates : {std::size_t{0}, std::size_t{1}, 4 - rounds}) {
      Json cut = whole;
      cut["complete"] = false;
      cut["rounds"].erase(cut["rounds"].begin() + static_cast<std::ptrdiff_t>(rounds + (candidates > 0)), cut["rounds"].end());
      if (candidates > 0) {
        Json& open = cut["rounds"].back();
        open.erase("picked");
        open["candidates"].erase(open["candidates"].begin() + static_cast<std::ptrdiff_t>(candidates), open["candidates"].end());
      }
      std::erase_if(cut["layers"].get_ref<Json::array_t&>(),
                    [&](const Json& layer) { return layer["round"].get<std::size_t>() > rounds; });
      write_json(folder / "cut.json", cut);
      continued(concat(rounds, " rounds and ", candidates, " candidates"));
    }
  }
  // And while the student trained: its newest checkpoint is gone with all that came after it.
  fs::remove(folder / "cut.json");
  for (const fs::path& checkpoint : list_checkpoints(folder / "cut_student")) fs::remove_all(checkpoint);
  continued("student");
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
  EXPECT_EQ(error_of([&] { rank(order_config({"method=list"}), "b.json"); }), "test: layers: missing, expected the order");
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
