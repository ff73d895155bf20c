// Products of few rows against LibTorch's in fp32. There are kernels on a GPU only.
#include "ops/skinny_linear/skinny_linear.h"

#include <c10/core/InferenceMode.h>

#include "ops/compare.h"
#include "ops/devices.h"
#include "ops/swiglu/swiglu.h"

namespace molt::ops {
namespace skinny_linear_test {

at::Tensor make(at::IntArrayRef shape, std::uint64_t seed, at::Device device) {
  return test_normal(shape, seed).to(device, at::kBFloat16);
}

TEST(SkinnyLinear, EqualsLibTorchsProduct) {
  c10::InferenceMode no_gradients;
  for (const at::Device device : test_devices()) {
    if (!device.is_cuda()) continue;
    for (const std::int64_t rows : {0, 1, 3, 8}) {
      for (const auto& [in, out] : {std::pair(32, 16), std::pair(5120, 48), std::pair(416, 2048), std::pair(64, 16000)}) {
        SCOPED_TRACE(testing::Message() << rows << " x " << in << " x " << out);
        const at::Tensor x = make({rows, in}, 1, device), weight = make({out, in}, 2, device), bias = make({out}, 3, device),
                         residual = make({rows, out}, 4, device);
        ASSERT_TRUE(has_skinny_kernel(x, weight));
        const at::Tensor product = at::mm(x.to(at::kFloat), weight.to(at::kFloat).t());
        EXPECT_LT(relative_error(skinny_linear(x, weight), product), 4e-3);
        EXPECT_LT(relative_error(skinny_linear(x, weight, bias, residual), product + bias + residual), 4e-3);
        EXPECT_LT(relative_error(skinny_swiglu(x, weight), swiglu_composite(product)), 4e-3);
      }
    }
  }
}

TEST(SkinnyLinear, HasNoKernelForMuchElse) {
  const at::Tensor x = at::zeros({2, 64}), weight = at::zeros({16, 64});
  EXPECT_FALSE(has_skinny_kernel(x, weight));
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
