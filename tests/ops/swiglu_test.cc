// SwiGLU: against the composite form and differences, odd shapes, threads.
#include "ops/swiglu/swiglu.h"

#include <ATen/Parallel.h>

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

TEST(Swiglu, EqualsItsFormula) {
  for (const at::Device device : test_devices())
    for (const at::ScalarType dtype : {at::kFloat, at::kDouble})
      for (const auto& [rows, intermediate] : {std::pair(0, 8), {1, 1}, {3, 7}, {33, 100}, {5, 0}})
        expect_same(gated, gated_reference, {test_normal({rows, 2 * intermediate}, 1) * 3}, device, dtype,
                    dtype == at::kFloat ? 1e-5 : 1e-12);
}

TEST(Swiglu, GateComesFirst) {
  const at::Tensor gate_up = at::tensor({0.0f, 20.0f, 5.0f, 3.0f}).view({1, 4});
  EXPECT_LT(relative_error(swiglu(gate_up), at::tensor({0.0f, 60.0f}).view({1, 2})), 1e-6);
}

TEST(Swiglu, LargeValuesStayFinite) {
  const at::Tensor gate_up = at::tensor({-1e4f, 1e4f, 1.0f, 1.0f}).view({1, 4});
  EXPECT_LT(relative_error(swiglu(gate_up), at::tensor({0.0f, 1e4f}).view({1, 2})), 1e-6);
}

TEST(Swiglu, GradientsAreThoseOfDifferences) {
  expect_gradients_of_differences(gated, {test_normal({3, 10}, 1)});
}

TEST(Swiglu, UsesAllThreads) {
  const at::Tensor gate_up = at::randn({2048, 512});
  EXPECT_EQ(busy_threads([&] {
              for (int i = 0; i < 60; ++i) swiglu(gate_up);
            }),
            at::get_num_threads());
}

TEST(Swiglu, RefusesAnOddWidth) {
  EXPECT_THROW(swiglu(at::ones({2, 5})), std::logic_error);
}

}  // namespace swiglu_test
}  // namespace molt::ops
