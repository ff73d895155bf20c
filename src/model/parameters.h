// Parameters by canonical name. Every module has one visit function that names each of its parameters once.
#pragma once
#include <ATen/core/Tensor.h>

#include <concepts>
#include <functional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace molt {

class Linear;

// Called with "layers.7.mixers.mamba.in_proj.weight" and the tensor, which may be replaced. A visitor made by `of_linears` is
// called with whole projections instead, "layers.7.mixers.mamba.in_proj", and with nothing else.
class ParameterVisitor {
 public:
  template <class F>
    requires(!std::same_as<std::remove_cvref_t<F>, ParameterVisitor> && std::invocable<F&, const std::string&, at::Tensor&>)
  ParameterVisitor(F&& on_parameter) : on_parameter_(std::forward<F>(on_parameter)) {}
  static ParameterVisitor of_linears(std::function<void(const std::string& name, Linear& linear)> on_linear) {
    ParameterVisitor visitor([](const std::string&, at::Tensor&) {});
    visitor.on_linear_ = std::move(on_linear);
    return visitor;
  }

  void operator()(const std::string& name, at::Tensor& value) const { on_parameter_(name, value); }
  void operator()(const std::string& name, Linear& linear) const {
    if (on_linear_) on_linear_(name, linear);
  }

 private:
  std::function<void(const std::string&, at::Tensor&)> on_parameter_;
  std::function<void(const std::string&, Linear&)> on_linear_;
};

struct Parameter {
  std::string name;
  at::Tensor value;  // shares storage with the module's
};

// Collects what `visit(visitor)` names.
std::vector<Parameter> collect_parameters(const std::function<void(const ParameterVisitor&)>& visit);

// Moves tensors into one flat, 64-byte aligned buffer and makes each a leaf that is a view of it, with gradients that are views
// of a second buffer (so that a unit can be sharded, gathered, offloaded, reduced and zeroed as one tensor).
struct FlatBuffer {
  at::Tensor values;     // (padded elements), one dtype
  at::Tensor gradients;  // (padded elements), fp32 (fp64 for fp64 values); undefined until the first backward pass is prepared
  struct Piece {
    std::string name;
    std::int64_t offset;  // elements from the start of the buffer
    at::Tensor value;     // the leaf parameter, a view of `values`
  };
  std::vector<Piece> pieces;
};

// Flattens the parameters for which `trainable(name)` holds and marks every other one as not requiring a gradient. The modules'
// tensors are replaced through the visitor. One buffer a dtype, device and answer of `apart` (empty: no further division).
std::vector<FlatBuffer> flatten_trainable(const std::function<void(const ParameterVisitor&)>& visit,
                                          const std::function<bool(const std::string&)>& trainable,
                                          const std::function<bool(const std::string&, const at::Tensor&)>& apart = {});
// Makes `gradients` exist and each parameter's .grad() a view of it, all zero.
void zero_gradients(FlatBuffer& buffer);

}  // namespace molt
