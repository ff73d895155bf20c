#include "base/random.h"

#include <gtest/gtest.h>

#include <numeric>
#include <set>

namespace molt::random_test {

// The published outputs of SplitMix64 for the seed 1234567.
TEST(Random, RepeatsThePublishedSequence) {
  Random random(1234567);
  EXPECT_EQ(random.next(), 6457827717110365317u);
  EXPECT_EQ(random.next(), 3203168211198807973u);
  EXPECT_EQ(random.next(), 9817491932198370423u);
}

// Data and shuffles of old runs depend on these.
TEST(Random, StaysTheSameForEver) {
  EXPECT_EQ(derive_seed(1, "shuffle", 0), derive_seed(1, "shuffle"));
  EXPECT_EQ(derive_seed(1, "shuffle", 2), 6178326544670346746u);
  std::vector<int> order(8);
  std::iota(order.begin(), order.end(), 0);
  Random random(7);
  random.shuffle(order);
  EXPECT_EQ(order, (std::vector<int>{7, 4, 6, 1, 2, 5, 0, 3}));
}

TEST(Random, DerivedSeedsDiffer) {
  std::set<std::uint64_t> seeds;
  for (std::uint64_t seed = 0; seed < 10; ++seed)
    for (const char* name : {"", "a", "b", "ab", "ba"})
      for (std::uint64_t index = 0; index < 10; ++index) seeds.insert(derive_seed(seed, name, index));
  EXPECT_EQ(seeds.size(), 500u);
}

TEST(Random, ContinuesFromItsState) {
  Random random(3);
  random.next();
  Random copy(random.state());
  EXPECT_EQ(random.next(), copy.next());
}

TEST(Random, DrawsEvenly) {
  Random random(5);
  std::vector<int> counts(7);
  double sum = 0;
  for (int i = 0; i < 70000; ++i) {
    ++counts.at(static_cast<std::size_t>(random.below(7)));
    const double x = random.uniform();
    ASSERT_GE(x, 0);
    ASSERT_LT(x, 1);
    sum += x;
  }
  for (const int count : counts) EXPECT_NEAR(count, 10000, 500);  // five standard deviations
  EXPECT_NEAR(sum / 70000, 0.5, 0.006);
  std::set<std::int64_t> ends;
  for (int i = 0; i < 200; ++i) ends.insert(random.between(-1, 1));
  EXPECT_EQ(ends, (std::set<std::int64_t>{-1, 0, 1}));
  EXPECT_GE(random.below(std::int64_t{1} << 62), 0);
  EXPECT_THROW(random.below(0), std::logic_error);
}

}  // namespace molt::random_test
