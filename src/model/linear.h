// Every projection of every module: weight, optional bias, named row sections, low-rank adapters (LoRA, arXiv 2106.09685). The
// single place where fp8, quantisation and sharding would wrap, too.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "model/parameters.h"
#include "ops/fp8_linear/fp8_linear.h"

namespace molt {

class Linear {
 public:
  struct Section {
    std::string name;  // "q", "k", "v"; "gate", "up"; "z", "x", "B", "C"
    std::int64_t rows;
  };

  // A section's weight acts as section_weight + scale B A; "" means all rows.
  struct Adapter {
    std::string section;
    at::Tensor A;  // (rank, in)
    at::Tensor B;  // (rows, rank)
    double scale = 1;
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
  // Rows [begin, end) of a section, of all of them for "". MOLT_CHECK fails for an unknown name.
  std::pair<std::int64_t, std::int64_t> rows(const std::string& section) const;
  // The section's part of the weight or bias, a view.
  at::Tensor section_weight(const std::string& section) const;
  at::Tensor section_bias(const std::string& section) const;

  // What acts: weight itself without adapters, else a new tensor of its dtype, the sum formed in fp32 (fp64).
  at::Tensor merged_weight() const;

  // The Linear itself; name.weight, name.bias; and for each adapter name.SECTION.lora_A and .lora_B.
  void visit(const std::string& name, const ParameterVisitor& visitor);

  // Takes the other's adapters and its weight in eight bits, if it has them: what a copy that shares its tensors needs beside
  // them.
  void share_extras(const Linear& other);

  // Keeps the weight in eight bits from now on (ops/fp8_linear), for layers that are frozen, without adapters and only run
  // forward; `weight` is then on the meta device. Leaves what ops::has_fp8_linear does not take, or is in eight bits already, as
  // it is.
  void to_fp8();

  // Of the weight in eight bits and its scales; 0 where it is not.
  std::int64_t fp8_bytes() const;

  at::Tensor weight;              // (out, in)
  at::Tensor bias;                // (out) or undefined
  std::vector<Adapter> adapters;  // at most one a section

 private:
  bool is_skinny(const at::Tensor& input) const;  // so few rows, of a plain layer, that kernels of their own take them
  at::Tensor product(const at::Tensor& input, const at::Tensor& added_bias) const;

  std::vector<Section> sections_;
  ops::Fp8Rows fp8_;  // undefined tensors unless to_fp8() was called
};

// Whether a parameter's canonical name is that of an adapter's A or B.
bool is_adapter(const std::string& parameter);

}  // namespace molt
