#include "model/rotary.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace molt {

void RotaryConfig::visit(ConfigVisitor& v) {
  v.choice("type", type, {"default", "linear", "dynamic", "yarn", "llama3"}, "Scaling of the frequencies");
  v.field("base", base, "Frequencies are base^(-2 i / head_size) before scaling");
  if (type == "default") return;
  v.field("factor", factor, "How many times longer texts the scaling is for");
  if (type == "linear") return;
  v.field("original_positions", original_positions, "Longest text that the frequencies were trained on");
  if (type == "yarn") {
    v.field("attention_factor", attention_factor, "Of cosines and sines; null: 0.1 ln(factor) + 1");
    v.field("beta_fast", beta_fast, "Dimensions that turn more often over original_positions are kept");
    v.field("beta_slow", beta_slow, "Dimensions that turn less often over original_positions are slowed down by factor");
    v.field("truncate", truncate, "The ramp between them begins and ends at whole dimensions");
  }
  if (type == "llama3") {
    v.field("low_frequency_factor", low_frequency_factor,
            "Wavelengths above original_positions / this are slowed down by factor");
    v.field("high_frequency_factor", high_frequency_factor, "Wavelengths below original_positions / this are kept");
  }
}

void RotaryConfig::check(const std::string& place) const {
  const auto positive = [&](const char* key, double value) {
    require(std::isfinite(value) && value > 0, place, ": ", key, ": found ", value, ", expected a positive number");
  };
  positive("base", base);
  if (type == "default") return;
  positive("factor", factor);
  if (type == "linear") return;
  positive("original_positions", static_cast<double>(original_positions));
  if (type == "yarn") {
    if (attention_factor) positive("attention_factor", *attention_factor);
    positive("beta_fast", beta_fast);
    positive("beta_slow", beta_slow);
    require(base != 1, place, ": base: found 1, expected another number for yarn");
  }
  if (type == "llama3") {
    positive("low_frequency_factor", low_frequency_factor);
    require(std::isfinite(high_frequency_factor) && high_frequency_factor > low_frequency_factor, place,
            ": high_frequency_factor: found ", high_frequency_factor, ", expected a number above low_frequency_factor ",
            low_frequency_factor);
  }
}

namespace rotary_scaling {

ops::Rotary yarn(const RotaryConfig& config, std::int64_t width) {
  const double original = static_cast<double>(config.original_positions);
  // The dimension that turns `rotations` times over the original positions.
  const auto dimension = [&](double rotations) {
    return static_cast<double>(width) * std::log(original / (rotations * 2 * M_PI)) / (2 * std::log(config.base));
  };
  double low = dimension(config.beta_fast), high = dimension(config.beta_slow);
  if (config.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(width - 1));
  if (low == high) high += 0.001;
  const at::Tensor kept = 1 - at::arange(width / 2, at::kFloat).sub(low).div(high - low).clamp(0, 1);
  const at::Tensor wavelengths = at::pow(at::Scalar(config.base), at::arange(0, width, 2, at::kLong).to(at::kFloat) / width);
  const at::Tensor scaled = (wavelengths * config.factor).reciprocal() * (1 - kept) + wavelengths.reciprocal() * kept;
  const double inferred = config.factor > 1 ? 0.1 * std::log(config.factor) + 1 : 1;
  return {scaled, config.attention_factor.value_or(inferred)};
}

ops::Rotary llama3(const RotaryConfig& config, const at::Tensor& plain) {
  const double original = static_cast<double>(config.original_positions);
  const double low = config.low_frequency_factor, high = config.high_frequency_factor;
  const at::Tensor wavelengths = 2 * M_PI / plain;
  const at::Tensor smooth = (original / wavelengths - low) / (high - low);
  const at::Tensor passing = (1 - smooth) * plain / config.factor + smooth * plain;
  at::Tensor scaled = at::where(wavelengths.gt(original / low), plain / config.factor, passing);
  return {at::where(wavelengths.lt(original / high), plain, scaled), 1};
}

// dynamic: one row of frequencies a token, (tokens, width / 2).
at::Tensor frequencies_by_length(const RotaryConfig& config, std::int64_t width, const at::Tensor& positions,
                                 const Sequences& sequences) {
  const std::int64_t tokens = positions.size(0);
  at::Tensor lengths = positions;
  if (sequences.count() != tokens) {
    // Empty sequences have no last token: their row is repeated no times.
    const at::Tensor ends = sequences.cu_seqlens.slice(0, 1).to(at::kLong);
    const at::Tensor counts = ends - sequences.cu_seqlens.slice(0, 0, -1).to(at::kLong);
    lengths = at::repeat_interleave(positions.index_select(0, (ends - 1).clamp_min(0)), counts, 0, tokens);
  }
  const double original = static_cast<double>(config.original_positions), values = static_cast<double>(width);
  const at::Tensor reached = (lengths + 1).clamp_min(config.original_positions).to(at::kFloat);
  const at::Tensor growth = (reached * config.factor / original - (config.factor - 1)).clamp_min(1);
  const at::Tensor bases = at::pow(growth, values / (values - 2)) * config.base;
  const at::Tensor exponents = at::arange(0, width, 2, bases.options().dtype(at::kLong)).to(at::kFloat) / values;
  return at::pow(bases.unsqueeze(1), exponents).reciprocal();
}

}  // namespace rotary_scaling

ops::Rotary RotaryConfig::frequencies(std::int64_t width, at::Device device) const {
  ops::Rotary rotary{ops::rotary_frequencies(width, base), 1};
  if (type == "linear") rotary.inverse_frequencies.div_(factor);
  if (type == "yarn") rotary = rotary_scaling::yarn(*this, width);
  if (type == "llama3") rotary = rotary_scaling::llama3(*this, rotary.inverse_frequencies);
  rotary.inverse_frequencies = rotary.inverse_frequencies.to(device);
  return rotary;
}

ops::RotaryTable RotaryConfig::table(const ops::Rotary& frequencies, const at::Tensor& positions,
                                     const Sequences& sequences) const {
  if (type != "dynamic" || positions.size(0) == 0) return ops::rotary_table(frequencies, positions);
  const std::int64_t width = frequencies.inverse_frequencies.size(0) * 2;
  const at::Tensor angles =
      positions.to(at::kFloat).unsqueeze(1) * rotary_scaling::frequencies_by_length(*this, width, positions, sequences);
  return {angles.cos(), angles.sin()};
}

}  // namespace molt
