#include "distill/convert.h"

#include <algorithm>
#include <map>
#include <set>

#include "base/counted.h"
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

bool is_attention(const ModelConfig& config, std::int64_t layer) {
  const std::vector<std::int64_t> layers = attention_layers(config);
  return std::binary_search(layers.begin(), layers.end(), layer);
}

std::string type_of(const ModelConfig& config, std::int64_t layer) {
  const BlockConfig& block = config.blocks[static_cast<std::size_t>(layer)];
  return block.identity ? "identity" : block.mixer().type();
}

// All checks before the first change.
void check_names(const ModelConfig& config, const std::vector<std::int64_t>& layers, const std::string& place) {
  std::set<std::int64_t> seen;
  for (const std::int64_t layer : layers) {
    require(layer >= 0 && layer < config.num_layers(), place, ": found layer ", layer, ", expected 0 to ",
            config.num_layers() - 1);
    require(seen.insert(layer).second, place, ": layer ", layer, " is named twice");
  }
}

void check_layers(const ModelConfig& config, const std::vector<std::int64_t>& layers, const std::string& place) {
  check_names(config, layers, place);
  for (const std::int64_t layer : layers) {
    require(is_attention(config, layer), place, ": layer ", layer, " is ", type_of(config, layer),
            " already, expected attention");
  }
}

void check_teacher(const ModelConfig& student, const ModelConfig& teacher, const std::vector<std::int64_t>& layers,
                   const std::string& place) {
  require(student.num_layers() == teacher.num_layers(), place, ": the model has ", counted(student.num_layers(), "layer"),
          " and its teacher ", teacher.num_layers(), ", expected the same");
  for (const std::int64_t layer : layers) {
    require(is_attention(teacher, layer), place, ": layer ", layer, " of the teacher is no attention layer to take weights from");
  }
}

// A layer's active mixer once more, with the same tensors.
std::unique_ptr<Mixer> shared_mixer(const Model& model, std::int64_t layer) {
  const std::unique_ptr<Model> copy = model.share();
  Mixer& from = copy->blocks[static_cast<std::size_t>(layer)].mixer();
  auto mixer = mixer_kind(from.config().type(), "mixer").make(from.config(), copy->config());
  std::map<std::string, at::Tensor> tensors;
  from.visit("", [&](const std::string& name, at::Tensor& value) { tensors[name] = value; });
  mixer->visit("", [&](const std::string& name, at::Tensor& value) { value = tensors.at(name); });
  return mixer;
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
  conversion::check_layers(student, layers, place);
  conversion::check_teacher(student, teacher, layers, place);
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

ModelConfig restored_config(const ModelConfig& student, const ModelConfig& teacher, const std::vector<std::int64_t>& layers,
                            const std::string& place) {
  using namespace conversion;
  check_names(student, layers, place);
  for (const std::int64_t layer : layers) {
    require(!is_attention(student, layer), place, ": layer ", layer, " is ", type_of(student, layer),
            " already, expected one that was converted");
    require(type_of(student, layer) != "identity", place, ": layer ", layer,
            " is identity and has no MLP to go with attention, expected one that was converted");
  }
  check_teacher(student, teacher, layers, place);
  ModelConfig restored = student;
  for (const std::int64_t layer : layers) {
    const auto i = static_cast<std::size_t>(layer);
    restored.blocks[i] = restored.blocks[i].with_mixer(teacher.blocks[i].mixer().clone());
  }
  return restored;
}

void restore_layers(Model& student, const Model& teacher, const std::vector<std::int64_t>& layers, const std::string& place) {
  restored_config(student.config(), teacher.config(), layers, place);
  for (const std::int64_t layer : layers) {
    auto mixer = conversion::shared_mixer(teacher, layer);
    const std::string name = mixer->config().type();
    student.set_mixer(layer, name, std::move(mixer));
  }
  student.drop_inactive();
}

}  // namespace molt
