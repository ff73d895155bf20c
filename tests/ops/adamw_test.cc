// AdamW: against the formula in double precision, ranges with and without decay, masters, gradients that are not finite.
#include "ops/adamw/adamw.h"

#include <cmath>
#include <limits>

#include "ops/compare.h"
#include "ops/devices.h"

namespace molt::ops {
namespace adamw_test {

constexpr AdamWStep kStep{.learning_rate = 0.01, .beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8, .step = 3};

// Ranges that end at these places, each with its own decay and learning rate.
std::vector<AdamWRange> ranges_of(const std::vector<std::int64_t>& ends) {
  std::vector<AdamWRange> ranges;
  for (const std::int64_t end : ends) {
    const std::int64_t begin = ranges.empty() ? 0 : ranges.back().end;
    ranges.push_back({begin, end, ranges.size() % 2 == 0 ? 0.1 : 0.0, 1.0 + static_cast<double>(ranges.size() / 2)});
  }
  return ranges;
}

AdamWBuffer buffer_of(const std::vector<std::int64_t>& ends, at::Device device, at::ScalarType dtype, at::ScalarType weights) {
  const std::int64_t n = ends.back();
  const auto draw = [&](std::uint64_t seed) { return test_normal({n}, seed).to(device, dtype); };
  AdamWBuffer buffer{draw(1), {}, draw(2), draw(3), draw(4).abs(), adamw_ranges(ranges_of(ends), device)};
  if (weights == dtype) return buffer;
  buffer.master = buffer.weights;
  buffer.weights = buffer.master.to(weights);
  return buffer;
}

AdamWBuffer copy_of(const AdamWBuffer& buffer) {
  AdamWBuffer copy = buffer;
  for (at::Tensor* tensor : {&copy.weights, &copy.master, &copy.gradients, &copy.moment1, &copy.moment2})
    if (tensor->defined()) *tensor = tensor->clone();
  return copy;
}

// What the formula makes of a buffer, in double precision on the CPU: weights, moment1, moment2.
TestTensors expected_of(const AdamWBuffer& buffer, const std::vector<std::int64_t>& ends, double scale) {
  const auto wide = [](const at::Tensor& tensor) { return tensor.cpu().to(at::kDouble); };
  at::Tensor decay = at::zeros({buffer.weights.numel()}, at::kDouble), rate = at::zeros_like(decay);
  for (const AdamWRange& range : ranges_of(ends)) {
    decay.slice(0, range.begin, range.end).fill_(range.weight_decay);
    rate.slice(0, range.begin, range.end).fill_(kStep.learning_rate * range.learning_rate_factor);
  }
  const at::Tensor g = wide(buffer.gradients) / scale;
  const at::Tensor m = kStep.beta1 * wide(buffer.moment1) + (1 - kStep.beta1) * g;
  const at::Tensor v = kStep.beta2 * wide(buffer.moment2) + (1 - kStep.beta2) * g * g;
  const at::Tensor m_hat = m / (1 - std::pow(kStep.beta1, kStep.step)), v_hat = v / (1 - std::pow(kStep.beta2, kStep.step));
  const at::Tensor weights = wide(buffer.master.defined() ? buffer.master : buffer.weights);
  return {weights * (1 - rate * decay) - rate * m_hat / (v_hat.sqrt() + kStep.epsilon), m, v};
}

TEST(AdamWUpdate, FollowsTheFormula) {
  const std::vector<std::vector<std::int64_t>> cases = {{1}, {64}, {16, 32, 48, 71}, {1024, 4096, 4112, 9999}, {5000, 300000}};
  for (const at::Device device : test_devices())
    for (const auto& [dtype, weights] :
         {std::pair(at::kFloat, at::kFloat), {at::kDouble, at::kDouble}, {at::kFloat, at::kBFloat16}})
      for (const auto& ends : cases) {
        SCOPED_TRACE(::testing::Message() << device << " " << weights << ", " << ends.back() << " values");
        const AdamWBuffer before = buffer_of(ends, device, dtype, weights), after = copy_of(before);
        const double norm = before.gradients.to(at::kDouble).norm().item<double>();
        const GradientScale scale = clip_gradients({before.gradients}, 2.0, 0.25 * norm);  // the norm is twice clip_norm
        EXPECT_NEAR(scale.norm.item<double>(), norm / 2, 1e-6 * norm);
        EXPECT_NEAR(scale.scale.item<double>(), 4, 1e-5);
        adamw(after, kStep, scale);
        const TestTensors expected = expected_of(before, ends, 4);
        EXPECT_LT(relative_error(after.master.defined() ? after.master : after.weights, expected[0]), 2e-6);
        EXPECT_LT(relative_error(after.moment1, expected[1]), 2e-6);
        EXPECT_LT(relative_error(after.moment2, expected[2]), 2e-6);
        EXPECT_TRUE(!after.master.defined() || at::equal(after.weights, after.master.to(weights)));
      }
}

void expect_unchanged(at::Device device, float gradient, const at::Tensor& limit) {
  const AdamWBuffer before = buffer_of({32, 77}, device, at::kFloat, at::kBFloat16), after = copy_of(before);
  after.gradients[76] = gradient;
  const GradientScale scale = clip_gradients({after.gradients}, 1, 1, limit);
  EXPECT_EQ(scale.broken.item<float>(), 1);
  adamw(after, kStep, scale);
  EXPECT_TRUE(at::equal(after.weights, before.weights) && at::equal(after.master, before.master));
  EXPECT_TRUE(at::equal(after.moment1, before.moment1) && at::equal(after.moment2, before.moment2));
}

TEST(AdamWUpdate, ChangesNothingWhenTheNormIsNotFiniteOrAboveTheLimit) {
  for (const at::Device device : test_devices()) {
    expect_unchanged(device, std::numeric_limits<float>::quiet_NaN(), {});
    expect_unchanged(device, std::numeric_limits<float>::infinity(), {});
    expect_unchanged(device, 1000.0f, at::full({}, 999.0f, device));
    EXPECT_EQ(clip_gradients({at::full({4}, 1.0f, device)}, 1, 1, at::full({}, 2.5f, device)).broken.item<float>(), 0);
  }
}

TEST(AdamWUpdate, TheNormIsOfAllTensorsAndKeepsItsPrecision) {
  for (const at::Device device : test_devices()) {
    const at::Tensor long_one = at::full({3000009}, 0.1, device), short_one = at::full({3}, 20.0, device);
    const double expected = std::sqrt(3000009 * 0.01 + 3 * 400.0) / 7;
    const GradientScale clipped = clip_gradients({long_one, short_one}, 7, 1),
                        plain = clip_gradients({long_one, short_one}, 7, 0);
    EXPECT_NEAR(clipped.norm.item<double>(), expected, 1e-5);
    EXPECT_NEAR(clipped.scale.item<double>(), 7 * expected, 1e-4);
    EXPECT_EQ(plain.scale.item<float>(), 7.0f);
  }
}

}  // namespace adamw_test
}  // namespace molt::ops
