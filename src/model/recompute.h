// Computing again in backward what forward did not keep.
#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

namespace molt {

// body(input), of which only `input` is kept for backward; backward runs `body` again and differentiates it. Gradients of
// `parameters`, the leaves that `body` uses, are added to their grad() there. They are passed because a graph without any input
// that requires a gradient would not be recorded. What `body` captures must live until then, and must not change.
at::Tensor recomputed(const std::function<at::Tensor(const at::Tensor&)>& body, const at::Tensor& input,
                      const std::vector<at::Tensor>& parameters);

}  // namespace molt
