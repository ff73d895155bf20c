#include "data/learned_part.h"

#include <gtest/gtest.h>

#include "base/files.h"
#include "data/packed_source.h"
#include "data/synthetic/problems.h"
#include "support/error_of.h"
#include "text/tokenizer.h"

namespace molt {
namespace learned_part_test {

class Given : public SampleStream {
 public:
  explicit Given(PackedBatch::Sample sample) : sample_(std::move(sample)) {}
  std::int64_t size() const override { return 1; }
  std::int64_t tokens() const override { return std::ssize(sample_.tokens); }
  PackedBatch::Sample at(std::int64_t) const override { return sample_; }

 private:
  PackedBatch::Sample sample_;
};

std::vector<float> weights(const PackedBatch::Sample& sample, const std::string& part) {
  const auto stream = learned_part(std::make_shared<Given>(sample), part, {7, 8});
  const PackedBatch::Sample learned = stream->at(0);
  EXPECT_EQ(learned.tokens, sample.tokens);
  EXPECT_EQ(stream->size(), 1);
  EXPECT_EQ(stream->tokens(), std::ssize(sample.tokens));
  return learned.weights;
}

using Weights = std::vector<float>;

// The prompt holds the end's tokens, too; a lone 7 ends nothing.
const PackedBatch::Sample kChain{{1, 7, 8, 2, 7, 3, 7, 8, 4, 5}, {0, 0, 0, 1, 1, 1, 1, 1, 1, 1}};

TEST(LearnedPart, TheEndBelongsToTheReasoning) {
  EXPECT_EQ(weights(kChain, "all"), kChain.weights);
  EXPECT_EQ(weights(kChain, "reasoning"), (Weights{0, 0, 0, 1, 1, 1, 1, 1, 0, 0}));
  EXPECT_EQ(weights(kChain, "answer"), (Weights{0, 0, 0, 0, 0, 0, 0, 0, 1, 1}));
}

TEST(LearnedPart, WhatHasNoEndIsReasoning) {
  const PackedBatch::Sample cut{{1, 2, 3, 7}, {0, 0.5f, 1, 1}};
  EXPECT_EQ(weights(cut, "reasoning"), cut.weights);
  EXPECT_EQ(weights(cut, "answer"), Weights(4, 0.0f));
}

TEST(LearnedPart, SamplesThatAreLearnedWhole) {
  const PackedBatch::Sample text{{7, 8, 9}, {}};
  EXPECT_EQ(weights(text, "reasoning"), (Weights{1, 1, 0}));
  EXPECT_EQ(weights(text, "answer"), (Weights{0, 0, 1}));
}

TEST(LearnedPart, OfSyntheticProblemsBeginsBehindTheirMark) {
  const auto tokenizer = Tokenizer::load(fs::path(MOLT_SOURCE) / "models/tiny-teacher");
  DataConfig config;
  config.synthetic.emplace();
  const auto sample = [&](const char* part) {
    config.learn = part;
    return open_data(config, tokenizer, "data")[0].stream->at(3);
  };
  const auto learned = [&](const PackedBatch::Sample& of) {
    std::vector<std::int32_t> tokens;
    for (std::size_t i = 0; i < of.tokens.size(); ++i)
      if (of.weights[i] != 0) tokens.push_back(of.tokens[i]);
    return tokenizer->decode(tokens, /*skip_special_tokens=*/true);
  };
  const Problem problem = make_problem(*config.synthetic, 3);
  const std::string reasoning = learned(sample("reasoning")), answer = learned(sample("answer"));
  EXPECT_TRUE(reasoning.ends_with("answer :")) << reasoning;
  EXPECT_TRUE(check_answer(reasoning + " " + answer, problem)) << answer;
  EXPECT_FALSE(final_answer(reasoning).has_value()) << reasoning;
}

TEST(LearnedPart, IsNotChosenOfWhatTheStudentWrites) {
  DataConfig config;
  const auto parse = [&](const char* text) { parse_config(text, "data.yaml", {}, [&](ConfigVisitor& v) { config.visit(v); }); };
  EXPECT_EQ(error_of([&] { parse("{synthetic: {}, learn: answer, on_policy: {}}"); }),
            "data.yaml: learn: found answer beside on_policy, expected all: the student writes on from the first token that is "
            "learned");
}

}  // namespace learned_part_test
}  // namespace molt
