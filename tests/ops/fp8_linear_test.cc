// Products in eight bits: rounding against its definition, products against exact ones of the rounded values.
#include "ops/fp8_linear/fp8_linear.h"

#include "ops/compare.h"
#include "ops/devices.h"

namespace molt::ops {
namespace fp8_linear_test {

at::Tensor widened(const Fp8Rows& rows) {
  return rows.values.cpu().to(at::kFloat).to(at::kDouble) * rows.scales.cpu().to(at::kDouble);
}

std::vector<at::Device> devices() {
  std::vector<at::Device> found;
  for (const at::Device device : test_devices())
    if (fp8_device(device)) found.push_back(device);
  return found;
}

TEST(Fp8Linear, EachRowKeepsItsLargestValueAndAnEighthOfAllOthers) {
  for (const at::Device device : devices())
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
      for (const std::int64_t columns : {16, 48, 4112}) {
        // Rows of very different sizes, whose values are not far from their largest one.
        const at::Tensor sizes = at::tensor({1e-6, 1.0, 3e4}).view({3, 1});
        const at::Tensor x = ((test_normal({3, columns}, 1).abs().clamp_max(3) + 0.1) * sizes).to(dtype).to(at::kDouble);
        const at::Tensor found = widened(fp8_rows(x.to(device, dtype)));
        EXPECT_LT(((found - x).abs() / x).max().item<double>(), 1.0 / 16 + 1e-5);
        EXPECT_LT(((found.amax({1}) - x.amax({1})).abs() / x.amax({1})).max().item<double>(), 1e-6);
      }
}

TEST(Fp8Linear, RowsOfZerosStayZeros) {
  for (const at::Device device : devices()) {
    const Fp8Rows rows = fp8_rows(at::zeros({2, 32}, at::TensorOptions(device).dtype(at::kFloat)));
    EXPECT_EQ(widened(rows).abs().max().item<double>(), 0);
    EXPECT_EQ(rows.scales.cpu().min().item<float>(), 1);
  }
}

TEST(Fp8Linear, IsTheProductOfTheRoundedValues) {
  for (const at::Device device : devices())
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
      for (const auto& [tokens, in, out] : {std::tuple(1, 16, 16), {7, 64, 48}, {130, 256, 144}, {0, 32, 32}}) {
        const at::Tensor x = test_normal({tokens, in}, 1).to(device, dtype), bias = test_normal({out}, 3).to(device, dtype);
        const Fp8Rows weight = fp8_rows(test_normal({out, in}, 2).to(device, dtype));
        const at::Tensor product = at::mm(widened(fp8_rows(x)), widened(weight).t());
        // On a GPU sums have fewer bits than float32 on the way, and results are bfloat16.
        const double tolerance = device.is_cpu() && dtype == at::kFloat ? 1e-5 : 1e-2;
        EXPECT_LT(relative_error(fp8_linear(x, weight), product), tolerance) << device << " " << tokens;
        EXPECT_LT(relative_error(fp8_linear(x, weight, bias), product + bias.cpu().to(at::kDouble)), tolerance);
      }
}

TEST(Fp8Linear, TakesMultiplesOfSixteen) {
  for (const at::Device device : devices()) {
    const auto weight = [&](std::int64_t out, std::int64_t in) { return at::empty({out, in}, at::TensorOptions(device)); };
    EXPECT_TRUE(has_fp8_linear(weight(16, 32)));
    EXPECT_FALSE(has_fp8_linear(weight(24, 32)));
    EXPECT_FALSE(has_fp8_linear(weight(16, 40)));
  }
}

}  // namespace fp8_linear_test
}  // namespace molt::ops
