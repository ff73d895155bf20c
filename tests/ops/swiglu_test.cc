// SwiGLU: against the composite form and differences, odd shapes, threads.
#include "ops/swiglu/swiglu.h"

#include "ops/busy_threads.h"
#include "ops/compare.h"
#include "ops/devices.h"

namespace molt::ops {
namespace swiglu_test {

TestTensors gated(const TestTensors& in) {
  return {swiglu(in[0])};
}
TestTensors gated_reference(const TestTensors& in) {
  return {swiglu_composite(in[0])};
}

double tolerance(at::ScalarType dtype) {
  return dtype == at::kDouble ? 1e-12 : dtype == at::kFloat ? 1e-5 : 2e-2;
}

TEST(Swiglu, EqualsItsFormula) {
  for (const at::Device device : test_devices())
    for (const at::ScalarType dtype : {at::kFloat, at::kDouble, at::kBFloat16})
      for (const auto& [rows, intermediate] : {std::pair(0, 8), {1, 1}, {3, 7}, {33, 100}, {5, 0}, {4, 4104}, {70, 64}})
        expect_same(gated, gated_reference, {test_normal({rows, 2 * intermediate}, 1, dtype) * 4}, device, dtype,
                    tolerance(dtype));
}

TEST(Swiglu, TakesRowsAtAnyAddressAndStride) {
  const auto moved = [](const TestTensors& in) -> TestTensors { return {swiglu(misaligned(in[0]))}; };
  const auto strided = [](const TestTensors& in) -> TestTensors { return {swiglu(in[0].slice(1, 2, 18))}; };
  const auto strided_reference = [](const TestTensors& in) -> TestTensors { return {swiglu_composite(in[0].slice(1, 2, 18))}; };
  for (const at::Device device : test_devices())
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      expect_same(moved, gated_reference, {test_normal({5, 32}, 1, dtype)}, device, dtype, tolerance(dtype));
      expect_same(strided, strided_reference, {test_normal({5, 32}, 1, dtype)}, device, dtype, tolerance(dtype));
    }
}

TEST(Swiglu, GateComesFirst) {
  const at::Tensor gate_up = at::tensor({0.0f, 20.0f, 5.0f, 3.0f}).view({1, 4});
  EXPECT_LT(relative_error(swiglu(gate_up), at::tensor({0.0f, 60.0f}).view({1, 2})), 1e-6);
}

TEST(Swiglu, LargeValuesStayFinite) {
  for (const at::Device device : test_devices()) {
    const at::Tensor gate_up = at::tensor({-1e4f, -90.0f, 1e4f, 1.0f, 1.0f, 1.0f}).view({1, 6}).to(device).requires_grad_(true);
    const at::Tensor out = swiglu(gate_up);
    EXPECT_LT(relative_error(out, at::tensor({0.0f, 0.0f, 1e4f}).view({1, 3})), 1e-6);
    out.sum().backward();
    EXPECT_LT(relative_error(gate_up.grad(), at::tensor({0.0f, 0.0f, 1.0f, 0.0f, 0.0f, 1e4f}).view({1, 6})), 1e-6);
  }
}

TEST(Swiglu, GradientsAreThoseOfDifferences) {
  expect_gradients_of_differences(gated, {test_normal({3, 10}, 1)});
}

TEST(Swiglu, UsesAllThreads) {
  const at::Tensor gate_up = at::randn({2048, 512});
  const int threads = few_threads();
  EXPECT_EQ(busy_threads([&] {
              for (int i = 0; i < 60; ++i) swiglu(gate_up);
            }),
            threads);
}

TEST(Swiglu, RefusesAnOddWidth) {
  EXPECT_THROW(swiglu(at::ones({2, 5})), std::logic_error);
}

}  // namespace swiglu_test
}  // namespace molt::ops
