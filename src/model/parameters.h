// Parameters by canonical name. Every module has one visit function that names each of its parameters once.
#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

namespace molt {

// Called with "layers.7.mixers.mamba.in_proj.weight" and the tensor, which may be replaced.
using ParameterVisitor = std::function<void(const std::string& name, at::Tensor& value)>;

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
