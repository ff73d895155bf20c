#include "ops/embedding/embedding.h"

#include <ATen/Functions.h>
#include <gtest/gtest.h>

namespace molt::ops {
namespace {

TEST(EmbeddingRows, AreThoseOfTheTokens) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kDouble}) {
    const at::Tensor weight = at::randn({11, 5}, at::kFloat).to(dtype);
    for (const std::int64_t count : {0, 1, 7, 200}) {
      const at::Tensor tokens = at::randint(11, {count}, at::kLong);
      EXPECT_TRUE(at::equal(embedding_rows(weight, tokens), weight.index_select(0, tokens)));
      EXPECT_TRUE(at::equal(embedding_rows(weight.t().contiguous().t(), tokens), weight.index_select(0, tokens)));
    }
    EXPECT_EQ(embedding_rows(weight, at::tensor({3}, at::kLong)).scalar_type(), dtype);
  }
}

TEST(EmbeddingRows, RefuseTokensThatAreNotThere) {
  const at::Tensor weight = at::ones({4, 3});
  EXPECT_ANY_THROW(embedding_rows(weight, at::tensor({1, 4}, at::kLong)));
  EXPECT_ANY_THROW(embedding_rows(weight, at::tensor({-1}, at::kLong)));
  EXPECT_ANY_THROW(embedding_rows(weight, at::tensor({1}, at::kInt)));
}

}  // namespace
}  // namespace molt::ops
