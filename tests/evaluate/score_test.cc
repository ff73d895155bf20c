#include "evaluate/score.h"

#include <gtest/gtest.h>

namespace molt {
namespace score_tests {

std::vector<JudgedSample> samples(const std::vector<const char*>& answers, const std::string& right) {
  std::vector<JudgedSample> found;
  for (const std::string answer : answers) found.push_back({answer, answer == right});
  return found;
}

TEST(Score, ErrorOfSingleSamplesIsBinomial) {
  Score score;
  for (int i = 0; i < 100; ++i) score.add(i < 80);
  EXPECT_DOUBLE_EQ(score.accuracy(), 0.8);
  EXPECT_NEAR(score.standard_error(), 0.04, 1e-12);
  EXPECT_EQ(Score().standard_error(), 0);
}

TEST(Score, SamplesOfAnItemAreOneCluster) {
  // Two items that are always and never right: four samples of each say no more than one.
  TaskScore once, often;
  add_item(once, {}, samples({"1"}, "1"));
  add_item(once, {}, samples({"2"}, "1"));
  add_item(often, {}, samples({"1", "1", "1", "1"}, "1"));
  add_item(often, {}, samples({"2", "2", "2", "2"}, "1"));
  EXPECT_EQ(often.samples, 8);
  EXPECT_DOUBLE_EQ(often.score.accuracy(), 0.5);
  EXPECT_DOUBLE_EQ(often.score.standard_error(), once.score.standard_error());
}

TEST(Score, PassAtKCountsSubsets) {
  EXPECT_DOUBLE_EQ(pass_at(4, 0, 2), 0);
  EXPECT_DOUBLE_EQ(pass_at(4, 4, 2), 1);
  EXPECT_DOUBLE_EQ(pass_at(4, 1, 1), 0.25);
  EXPECT_DOUBLE_EQ(pass_at(4, 1, 2), 0.5);    // 3 of the 6 pairs
  EXPECT_NEAR(pass_at(5, 2, 2), 0.7, 1e-12);  // all but 3 of the 10 pairs
  EXPECT_DOUBLE_EQ(pass_at(4, 2, 4), 1);
}

TEST(Score, TheMajorityIsOfEqualAnswers) {
  const auto right = [](std::vector<JudgedSample> votes) {
    for (JudgedSample& vote : votes) vote.correct = vote.extracted == "1/2" || vote.extracted == "0.5";
    return votes;
  };
  EXPECT_DOUBLE_EQ(majority_at(right(samples({"3", "1/2", "0.5", "3/1", "0.5"}, "")), 5), 1);
  EXPECT_DOUBLE_EQ(majority_at(right(samples({"3", "1/2"}, "")), 2), 0);     // of equals the first
  EXPECT_DOUBLE_EQ(majority_at(right(samples({"", "", "1/2"}, "")), 3), 1);  // no answer, no vote
  EXPECT_DOUBLE_EQ(majority_at(right(samples({"", ""}, "")), 2), 0);
  EXPECT_DOUBLE_EQ(majority_at(right(samples({"1/2", "3", "3", "1/2", "4"}, "")), 2), 0.5);
}

TEST(Score, FiguresAreGivenByGroupAndByK) {
  TaskScore score;
  TaskItem item;
  item.groups = {{"level", std::int64_t{3}}, {"subject", std::string("Algebra")}};
  add_item(score, item, samples({"1", "2", "1", "1", "1", "1"}, "1"));
  EXPECT_EQ(score.groups.at("subject").at("Algebra").items(), 1);
  std::vector<std::int64_t> ks;
  for (const auto& [k, unused] : score.pass) ks.push_back(k);
  EXPECT_EQ(ks, (std::vector<std::int64_t>{1, 2, 4, 6}));
  EXPECT_DOUBLE_EQ(score.majority.at(6).accuracy(), 1);
}

}  // namespace score_tests
}  // namespace molt
