// Which optimizer updates a parameter, and with what learning rate and weight decay.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "base/config.h"
#include "model/parameters.h"
#include "ops/adamw/adamw.h"

namespace molt {

struct OptimizerConfig;

// Parameters that train otherwise than the rest. Later groups go before earlier ones.
struct ParameterGroupConfig {
  std::vector<std::string> parameters;  // globs over canonical names; a leading "!" excludes
  double learning_rate_factor = 1.0;
  std::optional<double> weight_decay;  // the optimizer's, where it says nothing
  void visit(ConfigVisitor& visitor);
};

// Neighbouring pieces of a buffer that are updated alike; pieces of Muon have a range each.
using UpdateRange = ops::AdamWRange;

// Whether Muon updates a parameter of this name and shape. Decided before parameters are laid into buffers: those of Muon have a
// buffer of their own.
bool uses_muon(const OptimizerConfig& config, const std::string& name, const at::Tensor& value);
// The ranges of each buffer, in their order. UserError for a group's pattern that matches no trained parameter.
std::vector<std::vector<UpdateRange>> update_ranges(const OptimizerConfig& config, const std::vector<FlatBuffer>& buffers);

}  // namespace molt
