#include "model/linear.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include <utility>

#include "base/error.h"
#include "ops/linear/linear.h"
#include "ops/skinny_linear/skinny_linear.h"
#include "ops/swiglu/swiglu.h"

namespace molt {

Linear::Linear(std::int64_t in, std::vector<Section> sections, bool with_bias) : sections_(std::move(sections)) {
  std::int64_t out = 0;
  for (const Section& section : sections_) out += section.rows;
  const auto meta = at::TensorOptions(at::kMeta).dtype(at::kFloat);
  weight = at::empty({out, in}, meta);
  if (with_bias) bias = at::empty({out}, meta);
}

bool Linear::is_skinny(const at::Tensor& input) const {
  return adapters.empty() && !fp8_.values.defined() && ops::has_skinny_kernel(input, weight);
}

at::Tensor Linear::product(const at::Tensor& input, const at::Tensor& added_bias) const {
  if (fp8_.values.defined()) return ops::fp8_linear(input, fp8_, added_bias);
  if (is_skinny(input)) return ops::skinny_linear(input, weight, added_bias);
  std::vector<ops::LowRankUpdate> updates;
  for (const Adapter& adapter : adapters) updates.push_back({adapter.A, adapter.B, adapter.scale, rows(adapter.section).first});
  return ops::linear(input, weight, added_bias, updates);
}

at::Tensor Linear::forward(const at::Tensor& input) const {
  return product(input, bias);
}

at::Tensor Linear::forward_without_bias(const at::Tensor& input) const {
  return product(input, {});
}

at::Tensor Linear::forward_and_add(const at::Tensor& input, const at::Tensor& residual) const {
  if (is_skinny(input)) return ops::skinny_linear(input, weight, bias, residual);
  return residual + forward(input);
}

at::Tensor Linear::forward_swiglu(const at::Tensor& input) const {
  if (!bias.defined() && is_skinny(input)) return ops::skinny_swiglu(input, weight);
  return ops::swiglu(forward(input));
}

at::Tensor Linear::merged_weight() const {
  if (adapters.empty()) return weight;
  const at::ScalarType wide = weight.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor sum = weight.detach().to(wide, false, /*copy=*/true);
  for (const Adapter& adapter : adapters) {
    const auto [begin, end] = rows(adapter.section);
    sum.narrow(0, begin, end - begin).addmm_(adapter.B.detach().to(wide), adapter.A.detach().to(wide), 1, adapter.scale);
  }
  return sum.to(weight.scalar_type());
}

std::pair<std::int64_t, std::int64_t> Linear::rows(const std::string& section) const {
  if (section.empty()) return {0, out()};
  std::int64_t begin = 0;
  for (const Section& candidate : sections_) {
    if (candidate.name == section) return {begin, begin + candidate.rows};
    begin += candidate.rows;
  }
  MOLT_CHECK(false, "no section \"", section, "\"");
  return {};
}

at::Tensor Linear::section_weight(const std::string& section) const {
  const auto [begin, end] = rows(section);
  return weight.narrow(0, begin, end - begin);
}

at::Tensor Linear::section_bias(const std::string& section) const {
  MOLT_CHECK(bias.defined(), "a linear layer without bias");
  const auto [begin, end] = rows(section);
  return bias.narrow(0, begin, end - begin);
}

void Linear::share_extras(const Linear& other) {
  adapters = other.adapters;
  fp8_ = other.fp8_;
}

void Linear::to_fp8() {
  MOLT_CHECK(adapters.empty(), "a layer with adapters in eight bits");
  if (fp8_.values.defined() || !ops::has_fp8_linear(weight)) return;
  fp8_ = ops::fp8_rows(weight);
  weight = at::empty(weight.sizes(), weight.options().device(at::kMeta));
}

std::int64_t Linear::fp8_bytes() const {
  return fp8_.values.defined() ? static_cast<std::int64_t>(fp8_.values.nbytes() + fp8_.scales.nbytes()) : 0;
}

void Linear::visit(const std::string& name, const ParameterVisitor& visitor) {
  visitor(name, *this);
  visitor(name + ".weight", weight);
  if (bias.defined()) visitor(name + ".bias", bias);
  for (Adapter& adapter : adapters) {
    const std::string own = adapter.section.empty() ? name : name + "." + adapter.section;
    visitor(own + ".lora_A", adapter.A);
    visitor(own + ".lora_B", adapter.B);
  }
}

bool is_adapter(const std::string& parameter) {
  return parameter.ends_with(".lora_A") || parameter.ends_with(".lora_B");
}

}  // namespace molt
