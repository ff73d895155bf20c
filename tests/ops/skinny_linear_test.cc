// Products of few rows against LibTorch's in fp32.
#include "ops/skinny_linear/skinny_linear.h"

#include <c10/core/InferenceMode.h>

#include "ops/compare.h"
#include "ops/devices.h"
#include "ops/swiglu/swiglu.h"

namespace molt::ops {
namespace skinny_linear_test {

at::Tensor make(at::IntArrayRef shape, std::uint64_t seed, at::Device device) {
  return test_normal(shape, seed).to(device, device.is_cpu() ? at::kFloat : at::kBFloat16);
}

void expect_products(std::int64_t rows, std::int64_t in, std::int64_t out, at::Device device, double tolerance) {
  SCOPED_TRACE(testing::Message() << rows << " x " << in << " x " << out << " on " << device);
  const at::Tensor x = make({rows, in}, 1, device), weight = make({out, in}, 2, device), bias = make({out}, 3, device),
                   residual = make({rows, out}, 4, device);
  ASSERT_TRUE(has_skinny_kernel(x, weight));
  const at::Tensor product = at::mm(x.to(at::kFloat), weight.to(at::kFloat).t());
  EXPECT_LT(relative_error(skinny_linear(x, weight), product), tolerance);
  EXPECT_LT(relative_error(skinny_linear(x, weight, bias), product + bias), tolerance);
  EXPECT_LT(relative_error(skinny_linear(x, weight, bias, residual), product + bias + residual), tolerance);
  if (out % 2 == 0) {
    EXPECT_LT(relative_error(skinny_swiglu(x, weight), swiglu_composite(product)), tolerance);
  }
}

TEST(SkinnyLinear, EqualsLibTorchsProduct) {
  c10::InferenceMode no_gradients;
  for (const at::Device device : test_devices()) {
    if (!device.is_cuda()) continue;
    for (const std::int64_t rows : {0, 1, 3, 8}) {
      for (const auto& [in, out] : {std::pair(32, 16), std::pair(5120, 48), std::pair(416, 2048), std::pair(64, 16000)})
        expect_products(rows, in, out, device, 4e-3);
    }
  }
}

TEST(SkinnyLinear, EqualsLibTorchsProductOnTheCpu) {
  c10::InferenceMode no_gradients;
  for (const std::int64_t rows : {4, 7, 8, 9, 16, 17, 31, 32})
    for (const auto& [in, out] :
         {std::pair(1, 1), std::pair(13, 6), std::pair(64, 344), std::pair(172, 30), std::pair(700, 2049)})
      expect_products(rows, in, out, at::kCPU, 1e-5);
}

// A sequence's tokens do not depend on what is generated beside it.
TEST(SkinnyLinear, RowsDoNotDependOnEachOther) {
  c10::InferenceMode no_gradients;
  const at::Tensor x = make({32, 100}, 1, at::kCPU), weight = make({50, 100}, 2, at::kCPU), whole = skinny_linear(x, weight);
  for (const std::int64_t rows : {4, 8, 9, 16, 20})
    EXPECT_TRUE(skinny_linear(x.slice(0, 0, rows), weight).equal(whole.slice(0, 0, rows)));
}

TEST(SkinnyLinear, HasNoKernelForMuchElse) {
  const at::Tensor x = at::zeros({8, 64}), weight = at::zeros({16, 64});
  EXPECT_FALSE(has_skinny_kernel(x, weight)) << "outside of inference mode";
  {
    c10::InferenceMode no_gradients;
    EXPECT_TRUE(has_skinny_kernel(x, weight));
    EXPECT_FALSE(has_skinny_kernel(at::zeros({33, 64}), weight));
    EXPECT_FALSE(has_skinny_kernel(at::zeros({3, 64}), weight));
    EXPECT_FALSE(has_skinny_kernel(x.to(at::kDouble), weight.to(at::kDouble)));
    EXPECT_FALSE(has_skinny_kernel(x, at::zeros({64, 16}).t()));
  }
  for (const at::Device device : test_devices()) {
    if (!device.is_cuda()) continue;
    const at::Tensor good = make({2, 64}, 1, device), square = make({64, 64}, 2, device);
    EXPECT_FALSE(has_skinny_kernel(good, square)) << "while gradients are recorded";
    c10::InferenceMode no_gradients;
    EXPECT_TRUE(has_skinny_kernel(good, square));
    EXPECT_FALSE(has_skinny_kernel(make({9, 64}, 1, device), square));
    EXPECT_FALSE(has_skinny_kernel(good, make({24, 64}, 1, device)));
    EXPECT_FALSE(has_skinny_kernel(good.to(at::kFloat), square.to(at::kFloat)));
  }
}

}  // namespace skinny_linear_test
}  // namespace molt::ops
