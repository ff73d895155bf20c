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
  // A copy of this configuration must not change with it.
  settings = settings && type == before ? settings->clone() : mixer_kind(type, v.place()).make_config();
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

namespace conversion {

// All checks before the first change.
void check_layers(const ModelConfig& config, const std::vector<std::int64_t>& layers, const std::string& place) {
  const std::vector<std::int64_t> convertible = attention_layers(config);
  std::set<std::int64_t> seen;
  for (const std::int64_t layer : layers) {
    require(layer >= 0 && layer < config.num_layers(), place, ": found layer ", layer, ", expected 0 to ",
            config.num_layers() - 1);
    require(seen.insert(layer).second, place, ": layer ", layer, " is named twice");
    const BlockConfig& block = config.blocks[static_cast<std::size_t>(layer)];
    require(std::binary_search(convertible.begin(), convertible.end(), layer), place, ": layer ", layer, " is ",
            block.identity ? "identity" : block.mixer().type(), " already, expected attention");
  }
}

}  // namespace conversion

ModelConfig converted_config(const ModelConfig& config, const std::vector<std::int64_t>& layers, const TargetMixerConfig& target,
                             const std::string& place) {
  conversion::check_layers(config, layers, place);
  ModelConfig converted = config;
  for (const std::int64_t layer : layers) {
    BlockConfig& block = converted.blocks[static_cast<std::size_t>(layer)];
    std::shared_ptr<MixerConfig> settings = target.settings->clone();
    settings->complete({block.mixers.at(block.active)});
    block = block.with_mixer(std::move(settings));
  }
  return converted;
}

void check_conversion(const ModelConfig& student, const ModelConfig& teacher, const std::vector<std::int64_t>& layers,
                      const std::string& place) {
  require(student.num_layers() == teacher.num_layers(), place, ": the model has ", student.num_layers(),
          " layers and its teacher ", teacher.num_layers(), ", expected the same");
  conversion::check_layers(student, layers, place);
  const std::vector<std::int64_t> of_teacher = attention_layers(teacher);
  for (const std::int64_t layer : layers) {
    require(std::binary_search(of_teacher.begin(), of_teacher.end(), layer), place, ": layer ", layer,
            " of the teacher is no attention layer to take weights from");
  }
}

std::unique_ptr<Mixer> convert_mixer(const TargetMixerConfig& target, const ModelConfig& student, const Mixer& attention,
                                     std::int64_t layer, std::uint64_t seed, const std::string& place) {
  const MixerKind& kind = mixer_kind(target.type, place);
  require(kind.from_attention, place, ": a layer cannot be converted to \"", target.type, "\"");
  InitialiseOptions options;
  options.seed = derive_seed(seed, "convert", static_cast<std::uint64_t>(layer));
  try {
    return kind.from_attention(*target.settings, student, attention, options);
  } catch (const UserError& error) {
    fail(place, ": layer ", layer, ": ", error.what());
  }
}

void convert_layers(Model& student, const Model& teacher, const std::vector<std::int64_t>& layers,
                    const TargetMixerConfig& target, std::uint64_t seed, const std::string& place) {
  check_conversion(student.config(), teacher.config(), layers, place);
  for (const std::int64_t layer : layers) {
    const Mixer& attention = teacher.blocks[static_cast<std::size_t>(layer)].mixer();
    student.set_mixer(layer, target.type, convert_mixer(target, student.config(), attention, layer, seed, place));
  }
  student.drop_inactive();
}

}  // namespace molt
