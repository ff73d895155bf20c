// How the tests of operations compare: an operation against its composite form in double precision, and gradients against
// differences.
#pragma once
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <vector>

namespace molt {

using TestTensors = std::vector<at::Tensor>;
using TestFunction = std::function<TestTensors(const TestTensors&)>;

// Normal numbers in double precision, the same on every run.
inline at::Tensor test_normal(at::IntArrayRef shape, std::uint64_t seed) {
  at::Generator generator = at::globalContext().defaultGenerator(at::kCPU).clone();
  generator.set_current_seed(seed);
  return at::randn(shape, generator, at::kDouble);
}

// Of these, those that `dtype` holds, too: an operation in it then starts from the same numbers as its reference.
inline at::Tensor test_normal(at::IntArrayRef shape, std::uint64_t seed, at::ScalarType dtype) {
  return test_normal(shape, seed).to(dtype).to(at::kDouble);
}

// x as a contiguous tensor that begins one element after a multiple of 16 bytes.
inline at::Tensor misaligned(const at::Tensor& x) {
  return at::cat({x.flatten().narrow(0, 0, 1), x.flatten()}).narrow(0, 1, x.numel()).view(x.sizes());
}

// The largest difference relative to the largest expected value (or to 0.1 where all are smaller).
inline double relative_error(const at::Tensor& found, const at::Tensor& expected) {
  EXPECT_EQ(found.sizes(), expected.sizes());
  if (found.sizes() != expected.sizes()) return INFINITY;
  if (found.numel() == 0) return 0;
  const at::Tensor a = found.detach().cpu().to(at::kDouble), b = expected.detach().cpu().to(at::kDouble);
  const double error = (a - b).abs().max().item<double>();
  return error / std::max(b.abs().max().item<double>(), 0.1);
}

// Outputs and, for fixed random weights of the outputs, the gradients of the inputs.
struct Differentiated {
  TestTensors outputs, gradients;
};

inline Differentiated differentiate(const TestFunction& function, const TestTensors& inputs, at::Device device,
                                    at::ScalarType dtype) {
  TestTensors leaves;
  for (const at::Tensor& input : inputs) leaves.push_back(input.to(device, dtype).detach().clone().requires_grad_(true));
  Differentiated result;
  result.outputs = function(leaves);
  at::Tensor sum = at::zeros({}, at::TensorOptions(device).dtype(at::kDouble));
  for (std::size_t i = 0; i < result.outputs.size(); ++i)
    sum = sum + (result.outputs[i].to(at::kDouble) * test_normal(result.outputs[i].sizes(), 900 + i).to(device)).sum();
  sum.backward();
  for (const at::Tensor& leaf : leaves) result.gradients.push_back(leaf.grad().defined() ? leaf.grad() : at::zeros_like(leaf));
  return result;
}

// The operation in `dtype` on `device` gives what the reference gives in double precision on the CPU, gradients too.
inline void expect_same(const TestFunction& operation, const TestFunction& reference, const TestTensors& inputs,
                        at::Device device, at::ScalarType dtype, double tolerance) {
  const Differentiated found = differentiate(operation, inputs, device, dtype);
  const Differentiated expected = differentiate(reference, inputs, at::kCPU, at::kDouble);
  ASSERT_EQ(found.outputs.size(), expected.outputs.size());
  for (std::size_t i = 0; i < found.outputs.size(); ++i)
    EXPECT_LT(relative_error(found.outputs[i], expected.outputs[i]), tolerance)
        << "output " << i << ", " << dtype << " on " << device;
  for (std::size_t i = 0; i < found.gradients.size(); ++i)
    EXPECT_LT(relative_error(found.gradients[i], expected.gradients[i]), tolerance)
        << "gradient of input " << i << ", " << dtype << " on " << device;
}

// The gradients of the operation in double precision on the CPU are those that central differences give.
inline void expect_gradients_of_differences(const TestFunction& operation, const TestTensors& inputs) {
  const Differentiated found = differentiate(operation, inputs, at::kCPU, at::kDouble);
  const auto value = [&](const TestTensors& at_inputs) {
    c10::AutoGradMode no_recording(false);
    double sum = 0;
    const TestTensors outputs = operation(at_inputs);
    for (std::size_t i = 0; i < outputs.size(); ++i)
      sum += (outputs[i].to(at::kDouble) * test_normal(outputs[i].sizes(), 900 + i)).sum().item<double>();
    return sum;
  };
  constexpr double step = 1e-5;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    at::Tensor differences = at::empty(inputs[i].sizes(), at::kDouble);
    for (std::int64_t j = 0; j < inputs[i].numel(); ++j) {
      TestTensors moved = inputs;
      moved[i] = inputs[i].contiguous().clone();
      double& element = moved[i].data_ptr<double>()[j];
      const double place = element;
      element = place + step;
      const double above = value(moved);
      element = place - step;
      differences.data_ptr<double>()[j] = (above - value(moved)) / (2 * step);
    }
    EXPECT_LT(relative_error(found.gradients[i], differences), 1e-6) << "input " << i;
  }
}

}  // namespace molt
