// Gradient norms by part of the model, to see which layer a run's trouble comes from.
#pragma once
#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

#include "model/parameters.h"

namespace molt {

// "layers.7", "embedding", "head": the norm over the gradients of every trained parameter below that name, divided by `divisor`;
// fp64 scalars on the device.
std::map<std::string, at::Tensor> layer_gradient_norms(const std::vector<FlatBuffer>& buffers, double divisor);

}  // namespace molt
