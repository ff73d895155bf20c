#include "evaluate/evaluate.h"

#include <ATen/Functions.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/error.h"
#include "formats/hugging_face.h"
#include "support/temporary_folder.h"

namespace molt {
namespace evaluate_tests {

class EvaluateTest : public testing::Test {
 protected:
  void SetUp() override {
    const fs::path teacher = fs::path(MOLT_SOURCE) / "models/tiny-teacher";
    model_ = load_model(teacher);
    tokenizer_ = Tokenizer::load(teacher);
  }

  TemporaryFolder temporary_;
  const fs::path folder_ = temporary_.path();
  std::unique_ptr<Model> model_;
  std::shared_ptr<const Tokenizer> tokenizer_;
};

TEST_F(EvaluateTest, TheTinyTeacherSolvesItsProblems) {
  TaskConfig config;
  config.limit = 12;
  const auto task = make_task(config);
  EvaluateOptions options;
  options.output = folder_;
  const TaskScore whole = evaluate(*model_, tokenizer_, *task, options);
  EXPECT_EQ(whole.score.items, 12);
  EXPECT_GE(whole.score.correct, 10);

  // With some samples lost, an evaluation answers those again and no others.
  std::vector<std::string> lines;
  {
    std::string_view line;
    for (LineReader reader(folder_ / "samples.jsonl"); reader.next(line);) lines.emplace_back(line);
  }
  ASSERT_EQ(lines.size(), 12u);
  std::ofstream(folder_ / "samples.jsonl") << lines[0] << "\n" << lines[1] << "\n" << lines[2].substr(0, 20);
  const TaskScore again = evaluate(*model_, tokenizer_, *task, options);
  EXPECT_EQ(again.score.correct, whole.score.correct);
  EXPECT_EQ(again.generated_tokens, whole.generated_tokens);

  options.identity = "another model";
  EXPECT_THROW(evaluate(*model_, tokenizer_, *task, options), UserError);
}

TEST_F(EvaluateTest, ContinuationsAreScoredOneByOneAsTogether) {
  const auto prompt = tokenizer_->encode("jan has 3 apples . how many apples does jan have ?");
  const auto continuation = [&](const char* text) { return tokenizer_->encode(text, false); };
  const auto single = continuation_log_probabilities(*model_, prompt, {continuation(" jan"), continuation(" apples")});
  EXPECT_GT(single[0], single[1]);
  // A second token sends the same first token through the other path: log p(first) + log p(second | first).
  const auto pair = continuation_log_probabilities(*model_, prompt, {continuation(" jan ="), continuation(" apples")});
  auto longer = prompt;
  longer.push_back(continuation(" jan")[0]);
  const auto second = continuation_log_probabilities(*model_, longer, {continuation(" =")});
  EXPECT_NEAR(pair[0], single[0] + second[0], 1e-4);
  EXPECT_NEAR(pair[1], single[1], 1e-4);
}

TEST(Score, ErrorIsBinomial) {
  Score score{100, 80};
  EXPECT_DOUBLE_EQ(score.accuracy(), 0.8);
  EXPECT_NEAR(score.standard_error(), 0.04, 1e-12);
  EXPECT_EQ(Score{}.standard_error(), 0);
}

}  // namespace evaluate_tests
}  // namespace molt
