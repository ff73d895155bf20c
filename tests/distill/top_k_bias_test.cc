#include "distill/top_k_bias.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "distill/support.h"

namespace molt::top_k_bias_test {

using namespace distill_test;

TEST(TopKBias, FallsToTheRoundingOnDisk) {
  const std::shared_ptr<Model> teacher = new_teacher();
  const std::unique_ptr<Model> student = teacher->share();
  convert_layers(*student, *teacher, {1, 2}, mamba(), 1, "layers");
  const std::int64_t vocabulary = teacher->config().vocabulary;
  const std::vector<PackedBatch> batches = {random_batch({9, 14}), random_batch({20}, 8)};
  const TopKReport report = top_k_bias(*student, teacher, batches, {4, vocabulary / 2, vocabulary});
  EXPECT_EQ(report.tokens, batches[0].loss_tokens.numel() + batches[1].loss_tokens.numel());
  ASSERT_EQ(report.figures.size(), 9u);
  for (std::size_t i = 0; i < 9; i += 3) {
    const TopKBias &few = report.figures[i], &half = report.figures[i + 1], &all = report.figures[i + 2];
    SCOPED_TRACE(few.loss);
    EXPECT_GT(few.outside, half.outside);
    EXPECT_EQ(all.outside, 0);
    EXPECT_LT(few.loss_error(), half.loss_error());
    EXPECT_LT(half.loss_error(), 0);
    EXPECT_GT(few.gradient_error, half.gradient_error);
    EXPECT_GT(half.gradient_error, all.gradient_error);
    EXPECT_LT(few.cosine, half.cosine);
    EXPECT_NEAR(all.loss_error(), 0, 2e-3);
    EXPECT_LT(all.gradient_error, 2e-2);
    EXPECT_NEAR(all.cosine, 1, 1e-3);
  }
  EXPECT_EQ(report.to_json()["figures"][0]["loss"], "reverse_kl");
  EXPECT_EQ(error_of([&] { top_k_bias(*student, teacher, batches, {0}); }),
            concat("--top-k: found 0, expected numbers from 1 to ", vocabulary, ", the vocabulary"));
}

}  // namespace molt::top_k_bias_test
