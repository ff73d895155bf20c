// RMSNorm, with and without residual: against the composite form and differences, odd shapes, threads.
#include "ops/rms_norm/rms_norm.h"

#include <ATen/Parallel.h>

#include "ops/busy_threads.h"
#include "ops/compare.h"
#include "ops/devices.h"

namespace molt::ops {
namespace rms_norm_test {

constexpr double kEpsilon = 1e-5;

TestTensors norm(const TestTensors& in) {
  return {rms_norm(in[0], in[1], kEpsilon)};
}
TestTensors norm_reference(const TestTensors& in) {
  return {rms_norm_composite(in[0], in[1], kEpsilon)};
}
TestTensors residual(const TestTensors& in) {
  const NormedSum out = add_rms_norm(in[0], in[1], in[2], kEpsilon);
  return {out.normed, out.sum};
}
TestTensors residual_reference(const TestTensors& in) {
  const at::Tensor sum = in[0] + in[1];
  return {rms_norm_composite(sum, in[2], kEpsilon), sum};
}

TEST(RmsNorm, EqualsItsFormula) {
  for (const at::Device device : test_devices())
    for (const at::ScalarType dtype : {at::kFloat, at::kDouble})
      for (const auto& [rows, hidden] : {std::pair(0, 8), {1, 1}, {1, 64}, {3, 7}, {33, 100}, {300, 128}}) {
        const at::Tensor x = test_normal({rows, hidden}, 1), r = test_normal({rows, hidden}, 2), w = test_normal({hidden}, 3);
        const double tolerance = dtype == at::kFloat ? 2e-5 : 1e-12;
        expect_same(norm, norm_reference, {x, w}, device, dtype, tolerance);
        expect_same(residual, residual_reference, {x, r, w}, device, dtype, tolerance);
      }
}

TEST(RmsNorm, TakesHeadsAndStridedRows) {
  const auto strided = [](const TestTensors& in) -> TestTensors { return {rms_norm(in[0].slice(2, 0, 10), in[1], kEpsilon)}; };
  const auto reference = [](const TestTensors& in) -> TestTensors {
    return {rms_norm_composite(in[0].slice(2, 0, 10), in[1], kEpsilon)};
  };
  expect_same(strided, reference, {test_normal({4, 3, 20}, 1), test_normal({10}, 2)}, at::kCPU, at::kFloat, 1e-5);
}

TEST(RmsNorm, GradientsAreThoseOfDifferences) {
  expect_gradients_of_differences(norm, {test_normal({3, 5}, 1), test_normal({5}, 2)});
  expect_gradients_of_differences(residual, {test_normal({3, 5}, 1), test_normal({3, 5}, 2), test_normal({5}, 3)});
}

TEST(RmsNorm, GradientWhenOneOutputIsUsed) {
  const TestTensors inputs{test_normal({4, 6}, 1), test_normal({4, 6}, 2), test_normal({6}, 3)};
  for (const int used : {0, 1})
    expect_same([&](const TestTensors& in) -> TestTensors { return {residual(in)[used]}; },
                [&](const TestTensors& in) -> TestTensors { return {residual_reference(in)[used]}; }, inputs, at::kCPU,
                at::kDouble, 1e-12);
}

TEST(RmsNorm, HalfPrecisionIsComputedInSingle) {
  const at::Tensor x = test_normal({5, 64}, 1).to(at::kBFloat16), w = test_normal({64}, 2).to(at::kBFloat16);
  const at::Tensor found = rms_norm(x, w, kEpsilon);
  EXPECT_EQ(found.scalar_type(), at::kBFloat16);
  EXPECT_LT(relative_error(found, rms_norm_composite(x.to(at::kDouble), w.to(at::kDouble), kEpsilon)), 1e-2);
}

TEST(RmsNorm, NotANumberStaysOne) {
  at::Tensor x = at::ones({1, 16});
  x[0][3] = NAN;
  EXPECT_TRUE(rms_norm(x, at::ones({16}), kEpsilon).isnan().all().item<bool>());
}

TEST(RmsNorm, UsesAllThreads) {
  const at::Tensor x = at::randn({4096, 256}), w = at::ones({256});
  EXPECT_EQ(busy_threads([&] {
              for (int i = 0; i < 60; ++i) rms_norm(x, w, kEpsilon);
            }),
            at::get_num_threads());
}

TEST(RmsNorm, RefusesWrongShapes) {
  EXPECT_THROW(rms_norm(at::ones({2, 4}), at::ones({5}), kEpsilon), std::logic_error);
  EXPECT_THROW(add_rms_norm(at::ones({2, 4}), at::ones({3, 4}), at::ones({4}), kEpsilon), std::logic_error);
}

}  // namespace rms_norm_test
}  // namespace molt::ops
