#include "model/batch.h"

#include <ATen/Functions.h>
#include <gtest/gtest.h>

#include <stdexcept>

namespace molt::test {

namespace batch_test {

TEST(PackedBatch, ShiftsTargetsInsideEachSequence) {
  const PackedBatch batch = PackedBatch::of({{{5, 6, 7}, {9, 0, 0.5}}, {{8}, {}}, {{1, 2}, {}}});
  EXPECT_TRUE(at::equal(batch.tokens, at::tensor({5, 6, 7, 8, 1, 2}, at::kLong)));
  EXPECT_TRUE(at::equal(batch.targets, at::tensor({6, 7, -100, -100, 2, -100}, at::kLong)));
  EXPECT_TRUE(at::equal(batch.loss_weights, at::tensor({0.0, 0.5, 0.0, 0.0, 1.0, 0.0}, at::kFloat)));
  EXPECT_TRUE(at::equal(batch.loss_tokens, at::tensor({1, 4}, at::kLong)));
  EXPECT_TRUE(at::equal(batch.positions, at::tensor({0, 1, 2, 0, 0, 1}, at::kLong)));
  EXPECT_EQ(batch.sequences.offsets, (std::vector<std::int32_t>{0, 3, 4, 6}));
  EXPECT_EQ(batch.sequences.max_length, 3);
  EXPECT_EQ(batch.size(), 6);
  EXPECT_TRUE(at::equal(batch.to(at::kCPU).tokens, batch.tokens));
}

TEST(PackedBatch, MayBeEmpty) {
  EXPECT_EQ(PackedBatch::of({}).size(), 0);
  EXPECT_EQ(PackedBatch::of({{{}, {}}, {{3, 4}, {}}}).size(), 2);
}

TEST(PackedBatch, RefusesWeightsThatDoNotMatch) {
  EXPECT_THROW(PackedBatch::of({{{1, 2, 3}, {1, 1}}}), std::logic_error);
}

}  // namespace batch_test

}  // namespace molt::test
