// Which parameters a run trains.
#pragma once
#include <set>
#include <string>
#include <vector>

#include "model/model.h"

namespace molt {

// Those that the patterns pick (patterns.h) among the model's parameters; among its adapters' alone where it has any.
std::set<std::string> trained_names(Model& model, const std::vector<std::string>& patterns, const std::string& place);

}  // namespace molt
