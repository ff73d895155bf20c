#include "model/rotary.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "model/support.h"
#include "support/error_of.h"

namespace molt::test {

namespace rotary_test {

constexpr std::int64_t width = 8;

RotaryConfig scaled(const std::string& type) {
  RotaryConfig rotary;
  rotary.type = type;
  rotary.factor = 4;
  rotary.original_positions = 16;
  return rotary;
}

double frequency(const RotaryConfig& rotary, std::int64_t i) {
  return rotary.frequencies(width, at::kCPU).inverse_frequencies[i].item<double>();
}

TEST(Rotary, ScalingsAreTheirFormulas) {
  const RotaryConfig plain;
  EXPECT_NEAR(frequency(plain, 1), 0.1, 1e-7);
  EXPECT_NEAR(frequency(scaled("linear"), 1), 0.1 / 4, 1e-7);
  EXPECT_NEAR(frequency(scaled("dynamic"), 1), 0.1, 1e-7);

  // Llama 3: wavelengths 6.3, 63, 628, 6283 against 16 / 4 and 16 / 1; the first one passes.
  const RotaryConfig llama3 = scaled("llama3");
  const double smooth = (16 / (2 * M_PI) - 1) / (4 - 1);
  EXPECT_NEAR(frequency(llama3, 0), (1 - smooth) / 4 + smooth, 1e-6);
  EXPECT_NEAR(frequency(llama3, 1), 0.1 / 4, 1e-7);

  // YaRN: over 16 positions dimension i turns 16 / (2 pi 10^i) times; the ramp ends at 1 turn, log10(16 / (2 pi)) = 0.41 -> 1.
  const ops::Rotary yarn = scaled("yarn").frequencies(width, at::kCPU);
  EXPECT_NEAR(yarn.inverse_frequencies[0].item<double>(), 1, 1e-6);
  EXPECT_NEAR(yarn.inverse_frequencies[1].item<double>(), 0.1 / 4, 1e-7);
  EXPECT_NEAR(yarn.factor, 0.1 * std::log(4.0) + 1, 1e-12);
  RotaryConfig given = scaled("yarn");
  given.attention_factor = 0.5;
  EXPECT_EQ(given.frequencies(width, at::kCPU).factor, 0.5);
}

// Each sequence of a pack by its own length; one within the original positions is not scaled.
TEST(Rotary, DynamicScalingFollowsTheSequence) {
  const RotaryConfig rotary = scaled("dynamic");
  const Sequences sequences = Sequences::of({10, 0, 40});
  const at::Tensor positions = at::cat({at::arange(10), at::arange(40)});
  const ops::RotaryTable table = rotary.table(rotary.frequencies(width, at::kCPU), positions, sequences);
  const RotaryConfig plain;
  const ops::RotaryTable unscaled = plain.table(plain.frequencies(width, at::kCPU), positions, sequences);
  EXPECT_LT(difference(table.cos.slice(0, 0, 10), unscaled.cos.slice(0, 0, 10)), 1e-6);

  RotaryConfig longer;
  longer.base = 10000 * std::pow(4 * 40 / 16.0 - 3, 8 / 6.0);
  const ops::RotaryTable expected = longer.table(longer.frequencies(width, at::kCPU), positions, sequences);
  EXPECT_LT(difference(table.sin.slice(0, 10), expected.sin.slice(0, 10)), 1e-5);
  EXPECT_GT(difference(table.sin.slice(0, 10), unscaled.sin.slice(0, 10)), 0.1);
}

// Beyond the original positions a text read at once differs from one read in pieces, whose keys keep their turn; up to there not.
TEST(Rotary, DynamicScalingInGenerationFollowsWhatIsThere) {
  ModelConfig config = small_config({attention_block(), attention_block()});
  config.rotary = scaled("dynamic");
  const auto model = new_model(config);
  const PackedBatch batch = random_batch({24});
  const auto tokens = tokens_of(batch, 0);
  TestCaches at_once(*model, 1, 24), in_pieces(*model, 1, 24);
  const at::Tensor whole = model->forward(batch);
  EXPECT_LT(difference(at_once.extend(*model, {tokens}), whole), 2e-5);

  const auto part = [&](std::size_t begin, std::size_t end) {
    return std::vector<std::int32_t>(tokens.begin() + static_cast<std::int64_t>(begin),
                                     tokens.begin() + static_cast<std::int64_t>(end));
  };
  const at::Tensor first = in_pieces.extend(*model, {part(0, 16)}), rest = in_pieces.extend(*model, {part(16, 24)});
  EXPECT_LT(difference(first, model->forward(PackedBatch::of({{part(0, 16), {}}}))), 2e-5);
  EXPECT_GT(difference(rest, whole.slice(0, 16)), 1e-3);
}

TEST(Rotary, RefusesSettingsThatGiveNoFrequencies) {
  const auto error = [](const RotaryConfig& rotary) -> std::string {
    ModelConfig config = small_config({attention_block()});
    config.rotary = rotary;
    return molt::error_of([&] { Model model(config); });
  };
  RotaryConfig rotary = scaled("yarn");
  EXPECT_EQ(error(rotary), "");
  rotary.factor = -1;
  EXPECT_EQ(error(rotary), "rotary: factor: found -1, expected a positive number");
  rotary = scaled("llama3");
  rotary.high_frequency_factor = 0.5;
  EXPECT_EQ(error(rotary), "rotary: high_frequency_factor: found 0.5, expected a number above low_frequency_factor 1");
  rotary = scaled("dynamic");
  rotary.original_positions = 0;
  EXPECT_EQ(error(rotary), "rotary: original_positions: found 0, expected a positive number");
}

}  // namespace rotary_test

}  // namespace molt::test
