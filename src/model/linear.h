// Every projection of every module: weight, optional bias, named row sections. The single place where LoRA, fp8, quantisation and
// sharding wrap.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "model/parameters.h"

namespace molt {

class Linear {
 public:
  struct Section {
    std::string name;  // "q", "k", "v"; "gate", "up"; "z", "x", "B", "C"
    std::int64_t rows;
  };

  Linear() = default;
  // A layer whose tensors are allocated on the meta device until they are loaded or initialised.
  Linear(std::int64_t in, std::vector<Section> sections, bool bias);
  Linear(std::int64_t in, std::int64_t out, bool bias) : Linear(in, {{"", out}}, bias) {}

  // (tokens, in) -> (tokens, out); sections lie beside each other in the columns of the result.
  at::Tensor forward(const at::Tensor& input) const;
  // The same without the bias, for an operation that adds it itself.
  at::Tensor forward_without_bias(const at::Tensor& input) const;
  // residual + forward(input), and swiglu(forward(input)) of a layer with sections gate | up: what may be one kernel.
  at::Tensor forward_and_add(const at::Tensor& input, const at::Tensor& residual) const;
  at::Tensor forward_swiglu(const at::Tensor& input) const;

  std::int64_t in() const { return weight.size(1); }
  std::int64_t out() const { return weight.size(0); }
  const std::vector<Section>& sections() const { return sections_; }
  // Rows [begin, end) of a section. MOLT_CHECK fails for an unknown name.
  std::pair<std::int64_t, std::int64_t> rows(const std::string& section) const;
  // The section's part of the weight or bias, a view.
  at::Tensor section_weight(const std::string& section) const;
  at::Tensor section_bias(const std::string& section) const;

  void visit(const std::string& name, const ParameterVisitor& visitor);  // name.weight, name.bias

  at::Tensor weight;  // (out, in)
  at::Tensor bias;    // (out) or undefined

 private:
  std::vector<Section> sections_;
};

}  // namespace molt
