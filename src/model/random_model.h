// Models without a history, for measurements.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "model/model.h"

namespace molt {

// A model with random weights, drawn on the device where it will be used: as fast as its memory, but not the same numbers on
// every device (Model::initialise is that). A parameter of the same name and shape as one of `others` shares its storage, so that
// models which differ in some layers fit beside each other.
std::unique_ptr<Model> random_model(const ModelConfig& config, at::Device device, at::ScalarType dtype, std::uint64_t seed,
                                    const std::vector<const Model*>& others = {});

}  // namespace molt
