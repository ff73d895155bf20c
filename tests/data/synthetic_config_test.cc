#include <gtest/gtest.h>

#include "data/synthetic/problems.h"
#include "support/error_of.h"

namespace molt {
namespace synthetic_config_test {

void expect_error(const SyntheticConfig& config, const std::string& part) {
  const std::string error = error_of([&] { make_problem(config, 0); });
  EXPECT_NE(error.find(part), std::string::npos) << error;
}

TEST(Synthetic, ValuesOutOfRangeAreNamed) {
  SyntheticConfig config;
  config.steps_max = 13;
  expect_error(config, "synthetic: steps_max: found 13, expected a number from 2 to 12");
  config = {};
  config.steps_min = 6;
  expect_error(config, "steps_max: found 5, expected a number from 6 to 12");
  config = {};
  config.split = "validation";
  expect_error(config, "split: found \"validation\", expected one of train, test, all");
  config = {};
  config.steps_weights = {1, 2};
  expect_error(config, "steps_weights: found 2 numbers, expected 4");
  config.steps_weights = {0, 0, 0, 0};
  expect_error(config, "steps_weights: found only zeros");
  config = {};
  config.distractor_tokens = 5000;
  expect_error(config, "distractor_tokens: found 5000");
  config.distractor_tokens = 100;
  config.distractor_tokens_min = 101;
  expect_error(config, "distractor_tokens_min: found 101, expected a number from 0 to 100");
  config = {};
  config.questions = 97;
  expect_error(config, "questions: found 97, expected a number from 1 to 96");
  config.questions = 25;
  config.names = 21;
  expect_error(config, "questions: found 25, expected a number from 1 to 24");
  config.names = 10;
  expect_error(config, "names: found 10, expected a number from 11 to 48");
  config = {};
  config.split = "test";
  config.steps_min = config.steps_max = 1;
  config.numbers_max = 9;
  config.operands_max = 1;
  expect_error(config, "found no test problem of 1 to 1 steps");
}

TEST(Synthetic, ConfigIsReadFromYaml) {
  SyntheticConfig config;
  const auto visit = [&](ConfigVisitor& v) { config.visit(v); };
  parse_config("{form: prose, steps_max: 3, steps_weights: [1, 2]}", "recipe.yaml", {}, visit);
  EXPECT_EQ(config.form, "prose");
  EXPECT_EQ(config.steps_weights, (std::vector<double>{1, 2}));
  const std::string error = error_of([&] { parse_config("steps_max: 40", "recipe.yaml", {}, visit); });
  EXPECT_TRUE(error.starts_with("recipe.yaml")) << error;
  EXPECT_NE(error.find("steps_max: found 40, expected a number from 2 to 12"), std::string::npos) << error;
}

}  // namespace synthetic_config_test
}  // namespace molt
