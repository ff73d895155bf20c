#include "train/parameter_groups.h"

#include <map>
#include <set>

#include "base/error.h"
#include "train/optimizer.h"
#include "train/patterns.h"

namespace molt {

void ParameterGroupConfig::visit(ConfigVisitor& v) {
  v.field("parameters", parameters, "Glob patterns of the group's parameters; the last match decides, a leading ! excludes");
  v.field("learning_rate_factor", learning_rate_factor, "Factor on the learning rate");
  v.field("weight_decay", weight_decay, "Of all its parameters, vectors too; by default as outside the group");
  if (!v.reading()) return;
  require(!parameters.empty(), v.place(), ": parameters: missing, expected patterns of names");
  require(learning_rate_factor >= 0, v.place(), ": learning_rate_factor: found ", learning_rate_factor,
          ", expected a number from 0 up");
  require(!weight_decay || *weight_decay >= 0, v.place(), ": weight_decay: found ", weight_decay.value_or(0),
          ", expected a number from 0 up");
}

bool uses_muon(const OptimizerConfig& config, const std::string& name, const at::Tensor& value) {
  return config.type == "muon" && value.dim() == 2 && !matches_any(config.never_muon, name);
}

namespace parameter_groups {

struct Settings {
  double weight_decay, learning_rate_factor;
  bool operator==(const Settings&) const = default;
};

// Of every trained parameter by name.
std::map<std::string, Settings> settings(const OptimizerConfig& config, const std::vector<FlatBuffer>& buffers) {
  std::map<std::string, Settings> result;
  std::vector<std::string> names;
  for (const FlatBuffer& buffer : buffers) {
    for (const FlatBuffer::Piece& piece : buffer.pieces) {
      const bool decays = piece.value.dim() >= 2 && !matches_any(config.no_decay, piece.name);
      result[piece.name] = {decays ? config.weight_decay : 0.0, 1.0};
      names.push_back(piece.name);
    }
  }
  for (std::size_t i = 0; i < config.groups.size(); ++i) {
    const ParameterGroupConfig& group = config.groups[i];
    for (const std::string& name : select_names(group.parameters, names, concat("optimizer.groups[", i, "].parameters"))) {
      Settings& own = result[name];
      own.learning_rate_factor = group.learning_rate_factor;
      own.weight_decay = group.weight_decay.value_or(own.weight_decay);
    }
  }
  return result;
}

}  // namespace parameter_groups

std::vector<std::vector<UpdateRange>> update_ranges(const OptimizerConfig& config, const std::vector<FlatBuffer>& buffers) {
  using parameter_groups::Settings;
  const std::map<std::string, Settings> settings = parameter_groups::settings(config, buffers);
  std::vector<std::vector<UpdateRange>> result;
  for (const FlatBuffer& buffer : buffers) {
    std::vector<UpdateRange> ranges;
    for (const FlatBuffer::Piece& piece : buffer.pieces) {
      const Settings& own = settings.at(piece.name);
      // A piece's padding belongs to its range: its values and gradients are zero and stay so.
      if (!ranges.empty()) ranges.back().end = piece.offset;
      const bool alike = !ranges.empty() && !uses_muon(config, piece.name, piece.value) &&
                         own == Settings{ranges.back().weight_decay, ranges.back().learning_rate_factor};
      if (!alike) ranges.push_back({piece.offset, 0, own.weight_decay, own.learning_rate_factor});
    }
    if (!ranges.empty()) ranges.back().end = buffer.values.numel();
    result.push_back(std::move(ranges));
  }
  return result;
}

}  // namespace molt
