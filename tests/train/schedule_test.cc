#include "train/schedule.h"

#include <gtest/gtest.h>

#include <cmath>

#include "train/patterns.h"
#include "train/resolved_config.h"
#include "train/support.h"

namespace molt {

TEST(Schedule, RisesFromTheFirstStepAndEndsAtTheFinalFraction) {
  const ScheduleConfig cosine{"cosine", 10, 0.1};
  EXPECT_DOUBLE_EQ(schedule_factor(cosine, 0, 110), 0.1);
  EXPECT_DOUBLE_EQ(schedule_factor(cosine, 4, 110), 0.5);
  EXPECT_DOUBLE_EQ(schedule_factor(cosine, 9, 110), 1.0);
  EXPECT_DOUBLE_EQ(schedule_factor(cosine, 59, 110), 0.55);  // half way down
  EXPECT_NEAR(schedule_factor(cosine, 34, 110), 0.1 + 0.9 * (0.5 + std::sqrt(0.125)), 1e-12);
  EXPECT_DOUBLE_EQ(schedule_factor(cosine, 109, 110), 0.1);

  const ScheduleConfig linear{"linear", 0, 0.0};
  EXPECT_DOUBLE_EQ(schedule_factor(linear, 0, 4), 0.75);
  EXPECT_DOUBLE_EQ(schedule_factor(linear, 3, 4), 0.0);

  const ScheduleConfig constant{"constant", 2, 0.0};
  EXPECT_DOUBLE_EQ(schedule_factor(constant, 0, 4), 0.5);
  EXPECT_DOUBLE_EQ(schedule_factor(constant, 3, 4), 1.0);
}

TEST(Schedule, AStableRateFallsInItsLastShareOfTheSteps) {
  const ScheduleConfig stable{"warmup_stable_decay", 10, 0.1, 0.25};
  EXPECT_DOUBLE_EQ(schedule_factor(stable, 4, 100), 0.5);
  EXPECT_DOUBLE_EQ(schedule_factor(stable, 10, 100), 1.0);
  EXPECT_DOUBLE_EQ(schedule_factor(stable, 74, 100), 1.0);
  EXPECT_DOUBLE_EQ(schedule_factor(stable, 75, 100), 1.0 - 0.9 / 25);
  EXPECT_DOUBLE_EQ(schedule_factor(stable, 99, 100), 0.1);
  EXPECT_DOUBLE_EQ(schedule_factor({"warmup_stable_decay", 90, 0.0, 0.5}, 95, 100), 0.4);  // the fall waits for the warm-up
}

TEST(Schedule, AWarmUpLongerThanTheRunOnlyRises) {
  const ScheduleConfig cosine{"cosine", 8, 0.1};
  EXPECT_DOUBLE_EQ(schedule_factor(cosine, 3, 4), 0.5);
}

TEST(Patterns, StarsTakeAnyCharacters) {
  EXPECT_TRUE(matches_glob("*", ""));
  EXPECT_TRUE(matches_glob("layers.*.weight", "layers.7.mixers.mamba.in_proj.weight"));
  EXPECT_TRUE(matches_glob("*a*b", "aabab"));
  EXPECT_TRUE(matches_glob("layers.?.A_log", "layers.3.A_log"));
  EXPECT_FALSE(matches_glob("layers.?.A_log", "layers.13.A_log"));
  EXPECT_FALSE(matches_glob("layers", "layers.3"));
  EXPECT_FALSE(matches_glob("*.weight", "weights"));
}

TEST(Patterns, TheLastMatchDecides) {
  const std::vector<std::string> names = {"embedding", "layers.0.norm", "layers.0.w", "layers.1.w"};
  EXPECT_EQ(select_names({"layers.*", "!*norm"}, names, "t"), (std::set<std::string>{"layers.0.w", "layers.1.w"}));
  EXPECT_EQ(select_names({"*", "!layers.*", "layers.1.*"}, names, "t"), (std::set<std::string>{"embedding", "layers.1.w"}));
  EXPECT_EQ(error_of([&] { select_names({"layer.0.w"}, names, "training.trainable"); }),
            "training.trainable: found \"layer.0.w\", which no parameter's name matches; the nearest name is layers.0.w");
  EXPECT_EQ(error_of([&] { select_names({"*", "!*"}, names, "training.trainable"); }),
            "training.trainable: found patterns that leave no parameter, expected at least one");
}

TEST(ResolvedConfig, ChangedKeysAreNamedByTheirPaths) {
  const auto changed = changed_keys("a: {b: 1, c: [x, y]}\nd: 2\n", "a: {b: 1, c: [x, z]}\ne: 3\n", "a");
  std::string text;
  for (const ChangedKey& key : changed) text += key.path + " " + key.before + "|" + key.after + "; ";
  EXPECT_EQ(text, "a.c[1] \"y\"|\"z\"; d \"2\"|; e |\"3\"; ");
}

TEST(ResolvedConfig, ADamagedOneIsNamed) {
  const TemporaryFolder run;
  write_file(run.path() / "config.yaml", "a: [");
  const std::string error = error_of([&] { changed_results(run.path(), "a: 1\n"); });
  EXPECT_EQ(error.find((run.path() / "config.yaml").string() + ": no valid YAML"), 0u) << error;
}

TEST(ResolvedConfig, ASectionThatComesOrGoesIsOneChange) {
  const auto changes = [](const char* before, const char* after) {
    std::string text;
    for (const ChangedKey& key : changed_keys(before, after, "a")) text += key.path + " " + key.before + "|" + key.after + "; ";
    return text;
  };
  const char *without = "a: {lora: , b: 1}\n", *with = "a: {lora: {rank: 4, targets: [x, y]}, b: 1}\n";
  EXPECT_EQ(changes(without, with), "a.lora nothing|given; ");
  EXPECT_EQ(changes(with, without), "a.lora given|nothing; ");
  EXPECT_EQ(changes(with, with), "");
  EXPECT_EQ(changes("a: []\n", "a: [1, 2]\n"), "a a list|given; ");
}

}  // namespace molt
