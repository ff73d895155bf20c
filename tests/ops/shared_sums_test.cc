// Sums over shares against plain sums.
#include "ops/shared_sums.h"

#include <ATen/Functions.h>
#include <gtest/gtest.h>

#include "ops/devices.h"

namespace molt::ops {
namespace shared_sums_test {

TEST(SharedSums, AreSumsOfEachDtype) {
  struct Case {
    std::vector<std::int64_t> shape;  // of the shares
    at::ScalarType type;              // of the sum
  };
  const std::vector<Case> cases = {{{1, 7}, at::kFloat},       {{33, 64, 16}, at::kBFloat16}, {{16, 3}, at::kDouble},
                                   {{100, 33}, at::kBFloat16}, {{5, 0}, at::kFloat},          {{0, 40}, at::kFloat},
                                   {{17, 2048}, at::kFloat}};
  for (const at::Device device : test_devices()) {
    SharedSums sums;
    std::vector<at::Tensor> found, expected;
    at::manual_seed(1);
    for (const Case& c : cases) {
      const at::Tensor shares = at::randint(-64, 65, c.shape, at::TensorOptions(device).dtype(at::kFloat));
      found.push_back(sums.add(shares, at::empty({0}, shares.options().dtype(c.type))));
      expected.push_back(shares.sum(0).to(c.type));  // whole numbers: exact in any order
    }
    EXPECT_FALSE(sums.add({}, {}).defined());
    sums.finish();
    for (std::size_t i = 0; i < cases.size(); ++i) {
      EXPECT_EQ(found[i].scalar_type(), cases[i].type);
      EXPECT_TRUE(found[i].equal(expected[i])) << "sum " << i << " on " << device;
    }
  }
}

TEST(SharedSums, OfNothingAreNoWork) {
  for (const at::Device device : test_devices()) {
    SharedSums sums;
    sums.finish();
    const at::Tensor empty = at::empty({3, 0}, device);
    const at::Tensor sum = sums.add(empty, empty);
    sums.finish();
    EXPECT_EQ(sum.sizes(), at::IntArrayRef({0}));
  }
}

}  // namespace shared_sums_test
}  // namespace molt::ops
