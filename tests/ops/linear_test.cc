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

// The weight that acts: with `update` in rows [first, …).
at::Tensor updated(const at::Tensor& weight, const at::Tensor& down, const at::Tensor& up, double scale, std::int64_t first) {
  const at::Tensor update = scale * up.matmul(down);
  const auto zeros = [&](std::int64_t rows) { return at::zeros({rows, weight.size(1)}, weight.options()); };
  return weight + at::cat({zeros(first), update, zeros(weight.size(0) - first - update.size(0))});
}

TEST(Linear, LowRankUpdatesActAsTheSumWould) {
  const TestTensors inputs{test_normal({7, 5}, 1), test_normal({9, 5}, 2), test_normal({9}, 3),   test_normal({2, 5}, 4),
                           test_normal({4, 2}, 5), test_normal({3, 5}, 6), test_normal({3, 3}, 7)};
  const TestFunction ours = [](const TestTensors& in) -> TestTensors {
    return {ops::linear(in[0], in[1], in[2], {{in[3], in[4], 0.5, 1}, {in[5], in[6], 2, 6}})};
  };
  const TestFunction plain = [](const TestTensors& in) -> TestTensors {
    const at::Tensor weight = updated(updated(in[1], in[3], in[4], 0.5, 1), in[5], in[6], 2, 6);
    return {in[0].matmul(weight.t()) + in[2]};
  };
  for (const at::Device device : test_devices()) expect_same(ours, plain, inputs, device, at::kFloat, 1e-5);
  expect_gradients_of_differences(ours, inputs);
  EXPECT_THROW(ops::linear(inputs[0], inputs[1], {}, {{inputs[3], inputs[4], 1, 6}}), std::logic_error);
}

TEST(Linear, UpdatesOfAFrozenWeightAddToTheGradientsThatAreThere) {
  for (const at::Device device : test_devices())
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      const auto leaf = [&](at::IntArrayRef sizes, int seed) {
        const at::Tensor value = test_normal(sizes, seed).to(device, dtype).requires_grad_(true);
        value.set_grad_dtype(at::kFloat);
        at::Tensor(value).mutable_grad() = at::full(sizes, 2, at::TensorOptions(device).dtype(at::kFloat));
        return value;
      };
      const at::Tensor input = test_normal({64, 40}, 1).to(device, dtype), slope = test_normal({64, 24}, 3).to(device, dtype);
      const at::Tensor weight = test_normal({24, 40}, 2).to(device, dtype), down = leaf({4, 40}, 4), up = leaf({8, 4}, 5);
      ops::linear(input, weight, {}, {{down, up, 0.5, 16}}).backward(slope);
      const auto wide = [](const at::Tensor& value) { return value.detach().to(at::kFloat); };
      const at::Tensor own = wide(slope).narrow(1, 16, 8);
      const double tolerance = dtype == at::kFloat ? 1e-5 : 1e-2;
      EXPECT_LT(relative_error(up.grad(), 2 + 0.5 * own.t().mm(wide(input).mm(wide(down).t()))), tolerance);
      EXPECT_LT(relative_error(down.grad(), 2 + 0.5 * own.mm(wide(up)).t().mm(wide(input))), tolerance);
      EXPECT_FALSE(weight.grad().defined());
    }
}

}  // namespace linear_test
}  // namespace molt::ops
