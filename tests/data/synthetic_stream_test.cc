#include <gtest/gtest.h>

#include "base/files.h"
#include "data/sample_stream.h"
#include "data/synthetic/problems.h"

namespace molt {
namespace synthetic_stream_test {

TEST(SyntheticStream, SolutionsAreLearnedAndQuestionsAreNot) {
  const std::shared_ptr<const Tokenizer> tokenizer = Tokenizer::load(fs::path(MOLT_SOURCE) / "models/tiny-teacher");
  SyntheticConfig config;
  config.questions = 3;
  config.distractor_tokens = 50;
  const auto stream = synthetic_stream(config, tokenizer);
  for (std::int64_t i = 0; i < 20; ++i) {
    const Problem problem = make_problem(config, static_cast<std::uint64_t>(i));
    std::string text = problem.prompt + problem.completion, solutions = problem.completion;
    for (const Problem::Turn& turn : problem.further) {
      text += turn.question + turn.solution;
      solutions += turn.solution;
    }
    const PackedBatch::Sample sample = stream->at(i);
    ASSERT_EQ(sample.weights.size(), sample.tokens.size());
    auto expected = tokenizer->encode(text);
    expected.push_back(*tokenizer->eos());
    EXPECT_EQ(sample.tokens, expected);
    std::vector<std::int32_t> learned;
    for (std::size_t at = 0; at < sample.tokens.size(); ++at) {
      if (sample.weights[at] == 1) learned.push_back(sample.tokens[at]);
    }
    auto taught = tokenizer->encode(solutions, /*add_special_tokens=*/false);
    taught.push_back(*tokenizer->eos());
    EXPECT_EQ(learned, taught);
  }
}

}  // namespace synthetic_stream_test
}  // namespace molt
