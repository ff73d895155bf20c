#include "ops/autograd.h"

#include <ATen/core/ivalue.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace molt::ops {

namespace autograd_node {

using Forward = std::function<Tensors(Saved&)>;
using Backward = std::function<Tensors(const Tensors&, const Tensors&, const std::vector<bool>&)>;

// What the node keeps besides its saved tensors.
struct Recorded : torch::CustomClassHolder {
  Backward backward;
  std::vector<std::size_t> places;  // of the node's inputs, which are the defined ones, among those given to record()
  std::size_t count = 0;            // of inputs given to record()
};

struct Node : torch::autograd::Function<Node> {
  static Tensors forward(torch::autograd::AutogradContext* context, at::TensorList, const Forward* forward,
                         c10::intrusive_ptr<Recorded> recorded) {
    Saved saved;
    saved.recording = true;
    Tensors outputs = (*forward)(saved);
    context->save_for_backward(std::move(saved.tensors));
    context->saved_data["recorded"] = at::IValue::make_capsule(std::move(recorded));
    context->set_materialize_grads(false);
    Tensors constants;
    std::copy_if(outputs.begin(), outputs.end(), std::back_inserter(constants),
                 [](const at::Tensor& output) { return output.defined() && !output.is_floating_point(); });
    context->mark_non_differentiable(constants);
    return outputs;
  }

  static Tensors backward(torch::autograd::AutogradContext* context, const Tensors& gradients) {
    MOLT_CHECK(!c10::GradMode::is_enabled(), "these operations have no second derivative");
    const auto capsule = context->saved_data.at("recorded").toCapsule();
    const auto& recorded = static_cast<const Recorded&>(*capsule);
    std::vector<bool> needed(recorded.count, false);
    for (std::size_t i = 0; i < recorded.places.size(); ++i) needed[recorded.places[i]] = context->needs_input_grad(i);
    Tensors all = recorded.backward(context->get_saved_variables(), gradients, needed);
    MOLT_CHECK(all.size() == recorded.count, "backward gave ", all.size(), " gradients for ", recorded.count, " inputs");

    Tensors results;
    for (const std::size_t place : recorded.places) results.push_back(needed[place] ? std::move(all[place]) : at::Tensor());
    results.resize(results.size() + 2);  // the functions passed to forward have none
    return results;
  }
};

}  // namespace autograd_node

Tensors record(const Tensors& inputs, const std::function<Tensors(Saved& saved)>& forward,
               std::function<Tensors(const Tensors& saved, const Tensors& gradients, const std::vector<bool>& needed)> backward) {
  const auto wants_gradient = [](const at::Tensor& input) { return input.defined() && input.requires_grad(); };
  if (!c10::GradMode::is_enabled() || std::none_of(inputs.begin(), inputs.end(), wants_gradient)) {
    c10::AutoGradMode no_recording(false);
    Saved unused;
    return forward(unused);
  }
  auto recorded = c10::make_intrusive<autograd_node::Recorded>();
  recorded->backward = std::move(backward);
  recorded->count = inputs.size();
  Tensors defined;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (!inputs[i].defined()) continue;
    recorded->places.push_back(i);
    defined.push_back(inputs[i]);
  }
  return autograd_node::Node::apply(at::TensorList(defined), &forward, std::move(recorded));
}

}  // namespace molt::ops
