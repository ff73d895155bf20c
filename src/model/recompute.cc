#include "model/recompute.h"

#include <c10/core/GradMode.h>

#include "ops/autograd.h"

namespace molt {

at::Tensor recomputed(const std::function<at::Tensor(const at::Tensor&)>& body, const at::Tensor& input,
                      const std::vector<at::Tensor>& parameters) {
  ops::Tensors inputs{input};
  inputs.insert(inputs.end(), parameters.begin(), parameters.end());
  const auto forward = [&](ops::Saved& saved) -> ops::Tensors {
    saved.tensors = {input};
    return {body(input)};
  };
  const auto backward = [body, count = inputs.size()](const ops::Tensors& saved, const ops::Tensors& gradients,
                                                      const std::vector<bool>& needed) {
    ops::Tensors results(count);
    if (!gradients[0].defined()) return results;
    c10::AutoGradMode recording(true);
    at::Tensor leaf = saved[0].detach();
    leaf.set_requires_grad(needed[0]);
    // backward(), not grad(): the parameters' gradients are accumulated into their own, as without recomputing.
    body(leaf).backward(gradients[0]);
    results[0] = leaf.grad();
    return results;
  };
  return ops::record(inputs, forward, backward)[0];
}

}  // namespace molt
