#include "train/trained_names.h"

#include "train/patterns.h"

namespace molt {

std::set<std::string> trained_names(Model& model, const std::vector<std::string>& patterns, const std::string& place) {
  std::vector<std::string> names, adapters;
  for (const Parameter& parameter : model.parameters()) {
    (is_adapter(parameter.name) ? adapters : names).push_back(parameter.name);
  }
  return select_names(patterns, adapters.empty() ? names : adapters, place);
}

}  // namespace molt
