#include "evaluate/compare.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>

#include "base/error.h"
#include "support/error_of.h"

namespace molt {
namespace compare_tests {

TEST(Compare, EqualLogitsAreEqualAlsoWhenShifted) {
  const at::Tensor a = at::randn({37, 50});
  Comparison comparison;
  compare_logits(a, a + 3, comparison);
  EXPECT_EQ(comparison.all.positions, 37);
  EXPECT_EQ(comparison.all.same_top, 37);
  EXPECT_NEAR(comparison.all.kl_ab, 0, 1e-5);
  EXPECT_LT(comparison.all.largest_difference, 1e-5);
}

TEST(Compare, DivergencesAreThoseOfTheFormula) {
  // Two tokens: p = (0.5, 0.5), q = (0.9, 0.1).
  const at::Tensor a = at::tensor({0.5, 0.5}).log().view({1, 2}), b = at::tensor({0.9, 0.1}).log().view({1, 2});
  Comparison comparison;
  compare_logits(a, b, comparison);
  EXPECT_NEAR(comparison.all.kl_ab, 0.5 * std::log(0.5 / 0.9) + 0.5 * std::log(0.5 / 0.1), 1e-6);
  EXPECT_NEAR(comparison.all.kl_ba, 0.9 * std::log(0.9 / 0.5) + 0.1 * std::log(0.1 / 0.5), 1e-6);
}

TEST(Compare, CompletionsAreCountedWhereTheyArePredicted) {
  // The models differ at positions 2 and 3 alone, of which the last predicts nothing.
  const at::Tensor a = at::randn({4, 9});
  at::Tensor b = a.clone();
  b.slice(0, 2, 4).copy_(a.slice(0, 2, 4).flip(1));
  Comparison comparison;
  compare_logits(a, b, comparison, /*completion=*/2);
  EXPECT_EQ(comparison.completions.positions, 2);
  const at::Tensor p = at::log_softmax(a[2].to(at::kDouble), -1), q = at::log_softmax(b[2].to(at::kDouble), -1);
  EXPECT_NEAR(comparison.completions.kl_ab, (p.exp() * (p - q)).sum().item<double>(), 1e-9);
  Comparison without;
  compare_logits(a, b, without);
  EXPECT_EQ(without.completions.positions, 0);
}

TEST(Compare, RangesOfPositionsAddUp) {
  const at::Tensor a = at::randn({700, 9}), b = at::randn({700, 9});
  Comparison comparison;
  compare_logits(a, b, comparison);
  std::vector<std::int64_t> firsts;
  std::int64_t positions = 0;
  double kl = 0;
  for (const auto& [first, part] : comparison.by_position) {
    firsts.push_back(first);
    positions += part.positions;
    kl += part.kl_ab;
  }
  EXPECT_EQ(firsts, (std::vector<std::int64_t>{0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512}));
  EXPECT_EQ(positions, 700);
  EXPECT_NEAR(kl, comparison.all.kl_ab, 1e-9 * std::abs(kl));
}

TEST(Compare, SequencesAreReadAndChecked) {
  const fs::path path = fs::temp_directory_path() / concat("molt-compare-", getpid(), ".jsonl");
  const auto error = [&](const std::string& text) -> std::string {
    write_file(path, text);
    return molt::error_of([&] { read_sequences(path, nullptr, 10); });
  };
  write_file(path, "{\"tokens\": [1, 2, 9]}\n\n{\"tokens\": [0]}\n");
  const auto tokens = [&](const Tokenizer* tokenizer, std::int64_t vocabulary) {
    std::vector<std::vector<std::int32_t>> found;
    for (const Sequence& sequence : read_sequences(path, tokenizer, vocabulary)) found.push_back(sequence.tokens);
    return found;
  };
  EXPECT_EQ(tokens(nullptr, 10), (std::vector<std::vector<std::int32_t>>{{1, 2, 9}, {0}}));
  EXPECT_NE(error("{\"tokens\": [1, 10]}\n").find(":1: tokens: found 10, expected 0 to 9"), std::string::npos);
  EXPECT_NE(error("{\"tokens\": []}\n").find("no tokens"), std::string::npos);
  EXPECT_NE(error("{\"text\": \"a\"}\n").find("no tokenizer"), std::string::npos);
  const auto tokenizer = Tokenizer::load(fs::path(MOLT_SOURCE) / "models/tiny-teacher");
  write_file(path, "{\"text\": \"jan owns 7 apples .\"}\n{\"prompt\": \"jan owns\"}\n");
  EXPECT_EQ(tokens(tokenizer.get(), 385),
            (std::vector<std::vector<std::int32_t>>{tokenizer->encode("jan owns 7 apples ."), tokenizer->encode("jan owns")}));
  write_file(path, "{\"prompt\": \"jan owns\", \"completion\": \" 7 apples .\"}\n{\"prompt\": \"jan owns\"}\n");
  const std::vector<Sequence> sequences = read_sequences(path, tokenizer.get(), 385);
  EXPECT_EQ(sequences.at(0).completion, std::ssize(tokenizer->encode("jan owns")));
  EXPECT_EQ(sequences.at(1).completion, 0);
  fs::remove(path);
}

}  // namespace compare_tests
}  // namespace molt
