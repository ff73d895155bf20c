// The projection: autograd's numbers, with and without a gradient to add to.
#include "ops/linear/linear.h"

#include "ops/compare.h"
#include "ops/devices.h"

namespace molt::ops {
namespace linear_test {

TEST(Linear, IsTheProduct) {
  const TestTensors inputs{test_normal({7, 5}, 1), test_normal({3, 5}, 2), test_normal({3}, 3)};
  const TestFunction ours = [](const TestTensors& in) -> TestTensors { return {ops::linear(in[0], in[1], in[2])}; };
  const TestFunction plain = [](const TestTensors& in) -> TestTensors { return {in[0].matmul(in[1].t()) + in[2]}; };
  for (const at::Device device : test_devices()) expect_same(ours, plain, inputs, device, at::kFloat, 1e-5);
  expect_gradients_of_differences(ours, inputs);
  EXPECT_THROW(ops::linear(inputs[0], inputs[1].t()), std::logic_error);
}

TEST(Linear, AddsToTheGradientThatIsThere) {
  for (const at::Device device : test_devices())
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      const at::Tensor input = test_normal({64, 40}, 1).to(device, dtype), slope = test_normal({64, 24}, 3).to(device, dtype);
      const at::Tensor weight = test_normal({24, 40}, 2).to(device, dtype).requires_grad_(true);
      weight.set_grad_dtype(at::kFloat);
      at::Tensor(weight).mutable_grad() = at::full({24, 40}, 2, at::TensorOptions(device).dtype(at::kFloat));
      const void* const place = weight.grad().const_data_ptr();
      for (int pass = 0; pass < 2; ++pass) ops::linear(input, weight).backward(slope);
      const at::Tensor expected = slope.to(at::kFloat).t().mm(input.to(at::kFloat));
      EXPECT_EQ(weight.grad().const_data_ptr(), place);
      // On the CPU a product in bf16 is rounded before it is added.
      EXPECT_LT(relative_error(weight.grad(), 2 + 2 * expected), dtype == at::kFloat || device.is_cuda() ? 1e-5 : 1e-2);
    }
}

TEST(Linear, FrozenWeightsLetGradientsThrough) {
  const at::Tensor input = test_normal({4, 5}, 1).requires_grad_(true), weight = test_normal({3, 5}, 2);
  ops::linear(input, weight).sum().backward();
  EXPECT_LT(relative_error(input.grad(), weight.sum(0).expand({4, 5})), 1e-12);
  EXPECT_FALSE(ops::linear(input.detach(), weight).requires_grad());
}

}  // namespace linear_test
}  // namespace molt::ops
