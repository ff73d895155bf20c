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

at::Tensor Linear::forward(const at::Tensor& input) const {
  if (ops::has_skinny_kernel(input, weight)) return ops::skinny_linear(input, weight, bias);
  return ops::linear(input, weight, bias);
}

at::Tensor Linear::forward_without_bias(const at::Tensor& input) const {
  if (ops::has_skinny_kernel(input, weight)) return ops::skinny_linear(input, weight);
  return ops::linear(input, weight);
}

at::Tensor Linear::forward_and_add(const at::Tensor& input, const at::Tensor& residual) const {
  if (ops::has_skinny_kernel(input, weight)) return ops::skinny_linear(input, weight, bias, residual);
  return residual + forward(input);
}

at::Tensor Linear::forward_swiglu(const at::Tensor& input) const {
  if (!bias.defined() && ops::has_skinny_kernel(input, weight)) return ops::skinny_swiglu(input, weight);
  return ops::swiglu(forward(input));
}

std::pair<std::int64_t, std::int64_t> Linear::rows(const std::string& section) const {
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

void Linear::visit(const std::string& name, const ParameterVisitor& visitor) {
  visitor(name + ".weight", weight);
  if (bias.defined()) visitor(name + ".bias", bias);
}

}  // namespace molt
