#include "distill/convert.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/random.h"

namespace molt {

TargetMixerConfig TargetMixerConfig::of(const std::string& type) {
  return {type, mixer_kind(type, "mixer").make_config()};
}

void TargetMixerConfig::visit(ConfigVisitor& v) {
  std::vector<std::string> types;
  for (const MixerKind& kind : mixer_kinds())
    if (kind.from_attention) types.push_back(kind.type);
  const std::string before = type;
  v.choice("type", type, types, "Kind of mixer that takes the place of attention");
  if (!settings || type != before) settings = mixer_kind(type, v.place()).make_config();
  settings->visit(v);
}

std::vector<std::int64_t> attention_layers(const ModelConfig& config) {
  std::vector<std::int64_t> layers;
  for (std::int64_t i = 0; i < config.num_layers(); ++i) {
    const BlockConfig& block = config.blocks[static_cast<std::size_t>(i)];
    if (!block.identity && (block.mixer().type() == "attention" || block.mixer().type() == "sliding_window")) layers.push_back(i);
  }
  return layers;
}

void convert_layers(Model& student, const Model& teacher, const std::vector<std::int64_t>& layers,
                    const TargetMixerConfig& target, std::uint64_t seed, const std::string& place) {
  const MixerKind& kind = mixer_kind(target.type, place);
  require(kind.from_attention, place, ": a layer cannot be converted to \"", target.type, "\"");
  const std::int64_t count = student.config().num_layers();
  require(count == teacher.config().num_layers(), place, ": the model has ", count, " layers and its teacher ",
          teacher.config().num_layers(), ", expected the same");
  const auto convertible = attention_layers(student.config());
  const auto of_teacher = attention_layers(teacher.config());
  std::set<std::int64_t> seen;
  for (const std::int64_t layer : layers) {  // all checks before the first change
    require(layer >= 0 && layer < count, place, ": found layer ", layer, ", expected 0 to ", count - 1);
    require(seen.insert(layer).second, place, ": layer ", layer, " is named twice");
    const auto& block = student.config().blocks[static_cast<std::size_t>(layer)];
    require(std::binary_search(convertible.begin(), convertible.end(), layer), place, ": layer ", layer, " is ",
            block.identity ? "identity" : block.mixer().type(), " already, expected attention");
    require(std::binary_search(of_teacher.begin(), of_teacher.end(), layer), place, ": layer ", layer,
            " of the teacher is no attention layer to take weights from");
  }
  for (const std::int64_t layer : layers) {
    InitialiseOptions options;
    options.seed = derive_seed(seed, "convert", static_cast<std::uint64_t>(layer));
    try {
      auto mixer = kind.from_attention(*target.settings, student.config(),
                                       teacher.blocks[static_cast<std::size_t>(layer)].mixer(), options);
      student.set_mixer(layer, target.type, std::move(mixer));
    } catch (const UserError& error) {
      fail(place, ": layer ", layer, ": ", error.what());
    }
    student.blocks[static_cast<std::size_t>(layer)].drop_inactive();
  }
}

}  // namespace molt
