#include "formats/model_tensors.h"

#include <map>

#include "base/error.h"
#include "formats/family.h"

namespace molt {
namespace model_tensors {

using Names = std::map<std::string, std::vector<TensorName>>;  // by canonical name of the parameter

void add(Names& names, const std::string& prefix, const std::string& stored_prefix, TensorName name) {
  name.stored = stored_prefix + name.stored;
  names[prefix + name.parameter].push_back(std::move(name));
}

Names names_of(const Model& model) {
  Names names;
  for (const StoredName& name : model_tensor_names()) add(names, "", "", {name.parameter, name.section, name.stored});
  for (std::size_t i = 0; i < model.blocks.size(); ++i) {
    const BlockConfig& block = model.blocks[i].config();
    if (block.identity) continue;
    const std::string prefix = concat("layers.", i, "."), stored = concat("model.layers.", i, ".");
    for (const StoredName& name : block_tensor_names()) {
      const std::int64_t rows = *name.section ? block.mlp.intermediate_size : 0;  // gate and up are the only sections
      add(names, prefix, stored, {name.parameter, name.section, name.stored, 1.0, rows});
    }
    for (const TensorName& name : mixer_kind(block.mixer().type(), prefix).tensor_names(block.mixer())) {
      add(names, concat(prefix, "mixers.", block.active, "."), stored, name);
    }
  }
  return names;
}

// Whether the parameter is one of a mixer that its block does not use now.
bool is_inactive(const Model& model, const std::string& name) {
  if (!name.starts_with("layers.")) return false;
  std::size_t digits = 0;
  const std::size_t layer = std::stoull(name.substr(7), &digits);
  const std::string rest = name.substr(7 + digits);
  return rest.starts_with(".mixers.") && !rest.starts_with(concat(".mixers.", model.blocks[layer].config().active, "."));
}

}  // namespace model_tensors

std::vector<StoredParameter> stored_parameters(Model& model) {
  const model_tensors::Names names = model_tensors::names_of(model);
  std::vector<StoredParameter> parameters;
  model.visit([&](const std::string& name, at::Tensor& value) {
    if (is_adapter(name) || model_tensors::is_inactive(model, name)) return;
    auto found = names.find(name);
    MOLT_CHECK(found != names.end(), "no name on disk for parameter ", name);
    StoredParameter parameter{name, &value, {}};
    std::int64_t row = 0;
    for (const TensorName& part : found->second) {
      StoredTensor stored{part.stored, row, part.section.empty() ? value.size(0) : part.rows, value.sizes().vec(), part.scale};
      stored.shape[0] = stored.rows;
      row += stored.rows;
      parameter.on_disk.push_back(std::move(stored));
    }
    MOLT_CHECK(row == value.size(0), name, ": its sections have ", row, " rows, it has ", value.size(0));
    parameters.push_back(std::move(parameter));
  });
  return parameters;
}

}  // namespace molt
