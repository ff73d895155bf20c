#include <gtest/gtest.h>

#include "report/rank_correlation.h"
#include "report/ranking_tables.h"
#include "report/report.h"
#include "report/run_folders.h"

namespace molt::report {

using testing_report::RunFolders;

namespace rankings_tests {

LayerRanking ranking_of(const std::vector<std::int64_t>& order) {
  LayerRanking ranking;
  for (const std::int64_t layer : order) ranking.layers.push_back({.layer = layer});
  return ranking;
}

TEST(RankCorrelation, OfOrdersWhoseFiguresAreKnown) {
  const auto of = [](const std::vector<std::int64_t>& a, const std::vector<std::int64_t>& b) {
    return rank_correlation(ranking_of(a), ranking_of(b));
  };
  const auto same = of({4, 7, 1, 0}, {4, 7, 1, 0}), reversed = of({4, 7, 1, 0}, {0, 1, 7, 4});
  EXPECT_DOUBLE_EQ(same->spearman, 1);
  EXPECT_DOUBLE_EQ(same->kendall, 1);
  EXPECT_EQ(same->first_half, 2);
  EXPECT_DOUBLE_EQ(reversed->spearman, -1);
  EXPECT_DOUBLE_EQ(reversed->kendall, -1);
  EXPECT_EQ(reversed->first_half, 0);
  // Places 1 2 3 4 5 against 2 1 4 3 5: squared differences 1 + 1 + 1 + 1, and two of ten pairs turned round.
  const auto some = of({0, 1, 2, 3, 4}, {1, 0, 3, 2, 4});
  EXPECT_DOUBLE_EQ(some->spearman, 1 - 6.0 * 4 / (5 * 24));
  EXPECT_DOUBLE_EQ(some->kendall, 0.6);
  EXPECT_EQ(some->first_half, 2);
  // Layers that only one has do not count, wherever they stand.
  const auto partly = of({9, 0, 1, 8, 2, 3, 4}, {1, 0, 5, 3, 2, 4, 6});
  EXPECT_EQ(partly->layers, 5);
  EXPECT_DOUBLE_EQ(partly->spearman, some->spearman);
  EXPECT_DOUBLE_EQ(partly->kendall, some->kendall);
  EXPECT_FALSE(of({0, 1, 2}, {1, 0, 3}));
}

class Rankings : public RunFolders {
 protected:
  Rankings() {
    write_recipe();
    // Greedy: layer 1 was picked first although layer 0 saved more in its round.
    write("kl.json", R"({"method": "kl", "configuration": "distillation_loss_implementation: forward_kl\n", "complete": true,
      "baseline": {"score": 0.0, "kl": 0.9, "standard_error": 0.1, "student": "kl_student", "curve": [[1, 1.0], [2, 0.9]]},
      "layers": [{"layer": 0, "score": 0.4, "standard_error": 0.02, "kl": 0.2, "curve": [[1, 0.5], [2, 0.2]], "round": 2},
                 {"layer": 1, "score": 0.3, "standard_error": 0.03, "kl": 0.6, "curve": [[1, 0.8], [2, 0.6]], "round": 1},
                 {"layer": 2, "score": 0.2, "standard_error": 0.01, "kl": 0.0, "round": 3}]})");
    write("kl_student/metrics.jsonl", R"({"step":1,"tokens":100,"loss":2.0})"
                                      "\n"
                                      R"({"step":2,"tokens":200,"loss":1.0})"
                                      "\n");
    write("drawn.json", R"({"method": "random", "complete": true,
      "layers": [{"layer": 1, "score": 0, "standard_error": 0}, {"layer": 3, "score": 1, "standard_error": 0}]})");
  }
};

TEST_F(Rankings, FilesAreReadWithTheirCurvesAndStudents) {
  const Collection found = collect({folder / "recipe", folder / "kl.json", folder / "drawn.json"});
  ASSERT_EQ(found.rankings.size(), 3u);
  const LayerRanking& kl = found.rankings[1];
  EXPECT_EQ(kl.name, "kl");
  EXPECT_EQ(kl.measure, "forward KL saved (nats per token)");
  ASSERT_EQ(kl.layers.size(), 3u);
  EXPECT_EQ(kl.layers[0].layer, 2);  // the last round's
  EXPECT_EQ(kl.layers[1].layer, 0);
  EXPECT_EQ(kl.layers[2].layer, 1);
  ASSERT_EQ(kl.curves.size(), 3u);
  EXPECT_EQ(kl.curves[2].layer, -1);
  EXPECT_EQ(kl.curves[1].points.back(), (std::pair<double, double>(2, 0.6)));
  EXPECT_EQ(found.rankings[2].measure, "");
  EXPECT_EQ(found.curves.back().name, "kl (student)");
  EXPECT_EQ(found.curves.back().training.size(), 2u);
}

TEST_F(Rankings, SayWhichDivergenceWasMeasured) {
  const auto measure = [&](const std::string& configuration) {
    write("mmr.json", R"({"method": "mmr", "complete": true, "configuration": ")" + configuration +
                          R"(", "layers": [{"layer": 0, "score": 0.4, "standard_error": 0.02}]})");
    return collect({folder / "mmr.json"}).rankings.at(0).measure;
  };
  EXPECT_EQ(measure(""), "reverse KL left (nats per token)");
  EXPECT_EQ(measure(R"(distillation_loss_implementation: jsd\ndistillation_loss_mix: null\n)"),
            "Jensen-Shannon divergence left (nats per token)");
  EXPECT_EQ(measure(R"(distillation_loss_implementation: reverse_kl\ndistillation_loss_mix:\n  reverse_kl: 1.0\n)"),
            "mixed divergence left (nats per token)");
}

TEST_F(Rankings, StandSideBySide) {
  const Written written = write_report({folder / "recipe", folder / "kl.json", folder / "drawn.json"}, folder / "out");
  // loo has 2, 0, 1 and kl 2, 0, 1: they agree. The drawn order shares one layer with either.
  EXPECT_NE(written.tables.find("| loo-1 (loo) and kl | 3 | 1.00 | 1.00 | 1 of 1 |"), std::string::npos) << written.tables;
  EXPECT_EQ(written.tables.find("drawn"), std::string::npos);
  const std::string page = read_file(folder / "out/report.md"), html = read_file(folder / "out/report.html");
  EXPECT_NE(page.find("| 1 | 3 (0.750 ± 0.030) | 3 (0.300 ± 0.030) | 1 |"), std::string::npos) << page;
  EXPECT_NE(page.find("| 3 |  |  | 2 |"), std::string::npos) << page;
  for (const char* name : {"importance-loo-1", "importance-kl", "candidates-kl", "places"}) {
    EXPECT_NE(page.find(concat("figures/", name, ".svg")), std::string::npos) << name;
    EXPECT_TRUE(read_file(folder / "out/figures" / concat(name, ".png")).starts_with("\x89PNG")) << name;
  }
  EXPECT_EQ(page.find("importance-drawn"), std::string::npos);
  EXPECT_NE(html.find("Rankings side by side"), std::string::npos);
}

TEST_F(Rankings, ARankingAloneIsAReport) {
  const Written written = write_report({folder / "drawn.json"}, folder / "out");
  EXPECT_EQ(written.tables, "");
  EXPECT_TRUE(fs::exists(written.page));
  write("torn.json", R"({"method": "kl", "layers": [{"layer": 0, "score": 1, "curve": [[1]]}]})");
  EXPECT_EQ(error_of([&] { collect({folder / "torn.json"}); }),
            concat((folder / "torn.json").string(), ": layers[0]: curve: expected pairs of step and loss"));
}

}  // namespace rankings_tests

}  // namespace molt::report
