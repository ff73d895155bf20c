// The one autograd node of the house. An operation describes its forward and backward as functions of tensors; it never includes
// LibTorch's heavy custom_function.h.
#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

namespace molt::ops {

using Tensors = std::vector<at::Tensor>;

// What forward keeps for backward: inputs, outputs or intermediate tensors (undefined ones are allowed).
struct Saved {
  Tensors tensors;
  bool recording = false;  // a node is being made: only then is anything worth keeping
};

// Runs forward(saved) without recording and, when gradients are enabled and an input requires one, records one node.
//   inputs     every tensor a gradient may flow to (undefined ones are allowed)
//   forward    fills `saved` and returns the outputs (at least one; an input itself may be one, a view of an input may not)
//   backward   from what was saved and one gradient an output (undefined: zero), one gradient an input in the order of `inputs`
//              (undefined: none); needed[i] says whether input i wants its gradient. Runs without recording; double backward is
//              an error.
Tensors record(const Tensors& inputs, const std::function<Tensors(Saved& saved)>& forward,
               std::function<Tensors(const Tensors& saved, const Tensors& gradients, const std::vector<bool>& needed)> backward);

}  // namespace molt::ops
