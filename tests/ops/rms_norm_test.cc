// RMSNorm, with and without residual: against the composite form and differences, odd shapes, threads.
#include "ops/rms_norm/rms_norm.h"

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

TestTensors branch(const TestTensors& in) {
  const NormedSum out = branch_rms_norm(in[0], in[1], kEpsilon);
  return {out.normed, out.sum};
}
TestTensors branch_reference(const TestTensors& in) {
  return {rms_norm_composite(in[0], in[1], kEpsilon), in[0]};
}

double tolerance(at::ScalarType dtype) {
  return dtype == at::kDouble ? 1e-12 : dtype == at::kFloat ? 2e-5 : 2e-2;
}

void expect_formula(std::int64_t rows, std::int64_t hidden, at::Device device, at::ScalarType dtype) {
  SCOPED_TRACE(::testing::Message() << rows << " rows of " << hidden);
  const at::Tensor x = test_normal({rows, hidden}, 1, dtype), r = test_normal({rows, hidden}, 2, dtype),
                   w = test_normal({hidden}, 3, dtype);
  expect_same(norm, norm_reference, {x, w}, device, dtype, tolerance(dtype));
  expect_same(residual, residual_reference, {x, r, w}, device, dtype, tolerance(dtype));
  expect_same(branch, branch_reference, {x, w}, device, dtype, tolerance(dtype));
}

TEST(RmsNorm, EqualsItsFormula) {
  for (const at::Device device : test_devices())
    for (const at::ScalarType dtype : {at::kFloat, at::kDouble, at::kBFloat16})
      for (const auto& [rows, hidden] : {std::pair(0, 8), {1, 1}, {1, 64}, {3, 7}, {33, 100}, {300, 128}, {5, 1032}, {3, 2056}})
        expect_formula(rows, hidden, device, dtype);
}

// Rows so long that the GPU keeps one of them, not two, in shared memory, or leaves them to LibTorch; and more rows than blocks.
TEST(RmsNorm, TakesLongRowsAndManyOfThem) {
  for (const at::Device device : test_devices())
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
      for (const auto& [rows, hidden] : {std::pair(3, 16384), {2, 15001}, {2, 16400}, {1500, 256}, {700, 513}})
        expect_formula(rows, hidden, device, dtype);
}

TEST(RmsNorm, TakesHeadsAndStridedRows) {
  const auto strided = [](const TestTensors& in) -> TestTensors { return {rms_norm(in[0].slice(2, 0, 10), in[1], kEpsilon)}; };
  const auto reference = [](const TestTensors& in) -> TestTensors {
    return {rms_norm_composite(in[0].slice(2, 0, 10), in[1], kEpsilon)};
  };
  for (const at::Device device : test_devices())
    expect_same(strided, reference, {test_normal({4, 3, 20}, 1), test_normal({10}, 2)}, device, at::kFloat, 1e-5);
}

TEST(RmsNorm, TakesRowsAtAnyAddress) {
  const auto moved = [](const TestTensors& in) -> TestTensors {
    const NormedSum out = add_rms_norm(misaligned(in[0]), in[1], misaligned(in[2]), kEpsilon);
    return {misaligned(out.normed), out.sum};
  };
  for (const at::Device device : test_devices())
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
      expect_same(moved, residual_reference,
                  {test_normal({5, 64}, 1, dtype), test_normal({5, 64}, 2, dtype), test_normal({64}, 3, dtype)}, device, dtype,
                  tolerance(dtype));
}

TEST(RmsNorm, GradientsAreThoseOfDifferences) {
  expect_gradients_of_differences(norm, {test_normal({3, 5}, 1), test_normal({5}, 2)});
  expect_gradients_of_differences(residual, {test_normal({3, 5}, 1), test_normal({3, 5}, 2), test_normal({5}, 3)});
  expect_gradients_of_differences(branch, {test_normal({3, 5}, 1), test_normal({5}, 2)});
}

TEST(RmsNorm, GradientWhenOneOutputIsUsed) {
  const TestTensors inputs{test_normal({4, 6}, 1), test_normal({4, 6}, 2), test_normal({6}, 3)};
  for (const at::Device device : test_devices())
    for (const int used : {0, 1})
      expect_same([&](const TestTensors& in) -> TestTensors { return {residual(in)[used]}; },
                  [&](const TestTensors& in) -> TestTensors { return {residual_reference(in)[used]}; }, inputs, device,
                  at::kFloat, 1e-5);
}

// No copy is made of what passes by the branch, and one node gives both gradients.
TEST(RmsNorm, ABranchPassesItsInputOn) {
  const at::Tensor x = test_normal({4, 6}, 1).requires_grad_(true), w = test_normal({6}, 2);
  const NormedSum out = branch_rms_norm(x, w, kEpsilon);
  EXPECT_TRUE(out.sum.is_alias_of(x));
  EXPECT_EQ(out.sum.grad_fn(), out.normed.grad_fn());
}

// A run on the CPU repeats one whose gradients autograd added.
TEST(RmsNorm, ABranchJoinsGradientsAsAutogradAddsThem) {
  const TestTensors inputs{test_normal({40, 70}, 1), test_normal({70}, 2)};
  const auto apart = [](const TestTensors& in) -> TestTensors { return {rms_norm(in[0], in[1], kEpsilon), in[0] * 1}; };
  const Differentiated joined = differentiate(branch, inputs, at::kCPU, at::kFloat),
                       added = differentiate(apart, inputs, at::kCPU, at::kFloat);
  for (std::size_t i = 0; i < inputs.size(); ++i) EXPECT_TRUE(joined.gradients[i].equal(added.gradients[i]));
}

TEST(RmsNorm, HalfPrecisionIsComputedInSingle) {
  for (const at::Device device : test_devices()) {
    const at::Tensor x = test_normal({5, 64}, 1).to(device, at::kBFloat16), w = test_normal({64}, 2).to(device, at::kBFloat16);
    const at::Tensor expected = rms_norm_composite(x.to(at::kDouble), w.to(at::kDouble), kEpsilon);
    EXPECT_TRUE(at::equal(rms_norm(x, w, kEpsilon), expected.to(at::kBFloat16)));  // but for ties, which are none here
  }
}

TEST(RmsNorm, NotANumberStaysOne) {
  for (const at::Device device : test_devices()) {
    at::Tensor x = at::ones({1, 16}, device);
    x[0][3] = NAN;
    EXPECT_TRUE(rms_norm(x, at::ones({16}, device), kEpsilon).isnan().all().item<bool>());
  }
}

TEST(RmsNorm, GradientsAreTheSameEveryTime) {
  for (const at::Device device : test_devices()) {
    const TestTensors inputs{test_normal({2000, 96}, 1), test_normal({2000, 96}, 2), test_normal({96}, 3)};
    const Differentiated one = differentiate(residual, inputs, device, at::kFloat),
                         two = differentiate(residual, inputs, device, at::kFloat);
    for (std::size_t i = 0; i < inputs.size(); ++i) EXPECT_TRUE(one.gradients[i].equal(two.gradients[i]));
  }
}

TEST(RmsNorm, UsesAllThreads) {
  const at::Tensor x = at::randn({4096, 256}), w = at::ones({256});
  const int threads = few_threads();
  EXPECT_EQ(busy_threads([&] {
              for (int i = 0; i < 60; ++i) rms_norm(x, w, kEpsilon);
            }),
            threads);
}

TEST(RmsNorm, RefusesWrongShapes) {
  EXPECT_THROW(rms_norm(at::ones({2, 4}), at::ones({5}), kEpsilon), std::logic_error);
  EXPECT_THROW(add_rms_norm(at::ones({2, 4}), at::ones({3, 4}), at::ones({4}), kEpsilon), std::logic_error);
}

}  // namespace rms_norm_test
}  // namespace molt::ops
