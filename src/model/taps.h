// Named activations of a forward pass, asked for by whoever wants to look: a mixer's input, its output. Matching and diagnostics
// use them.
#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <set>
#include <string>

namespace molt {

// Names: "layers.7.input" (hidden states entering the block), "layers.7.mixer.input" (after the norm), "layers.7.mixer.output"
// (before the residual), "layers.7.output", "final" (after the last norm).
struct Taps {
  std::set<std::string> wanted;
  std::map<std::string, at::Tensor> found;  // filled by forward, (tokens, hidden), part of the graph
  // Whether any activation of the module of this name ("layers.7") is wanted.
  bool wants_below(const std::string& name) const {
    const auto first = wanted.lower_bound(name + ".");
    return first != wanted.end() && first->starts_with(name + ".");
  }
  void offer(const std::string& name, const at::Tensor& value) {
    if (wanted.count(name)) found[name] = value;
  }
};

}  // namespace molt
