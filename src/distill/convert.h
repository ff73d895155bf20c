// Putting other mixers in the place of attention, and attention back.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/config.h"
#include "model/model.h"

namespace molt {

// What converted layers become: `{type: mamba, state_size: 16, initialisation: aligned, …}`. Sizes that are left out follow from
// the attention layer.
struct TargetMixerConfig {
  std::string type = "mamba";
  std::shared_ptr<MixerConfig> settings;  // of that type
  void visit(ConfigVisitor& visitor);
  // Defaults of a type.
  static TargetMixerConfig of(const std::string& type);
};

// Replaces the mixers of `layers` in the student, initialised from the teacher's attention of the same layers. Norms, MLP and
// everything else stay the student's. Each layer's new weights are a function of (seed, layer). UserError for a layer that does
// not exist, is named twice, is no attention layer any more in the student, or does not fit; `place` ("--layers") starts it.
void convert_layers(Model& student, const Model& teacher, const std::vector<std::int64_t>& layers,
                    const TargetMixerConfig& target, std::uint64_t seed, const std::string& place);

// The parts of it. What is wrong with the layers, before anything is changed; and the mixer that takes the place of a layer's
// attention in a model of configuration `student`.
void check_conversion(const ModelConfig& student, const ModelConfig& teacher, const std::vector<std::int64_t>& layers,
                      const std::string& place);
std::unique_ptr<Mixer> convert_mixer(const TargetMixerConfig& target, const ModelConfig& student, const Mixer& attention,
                                     std::int64_t layer, std::uint64_t seed, const std::string& place);

// The configuration of the model that convert_layers makes, from configurations alone; the same errors for layers.
ModelConfig converted_config(const ModelConfig& config, const std::vector<std::int64_t>& layers, const TargetMixerConfig& target,
                             const std::string& place);

// The way back: puts the teacher's attention into `layers` of the student, sharing its storage. Norms, MLP and everything else
// stay the student's. UserError for a layer that does not exist, is named twice, is attention already, passes its MLP by too
// (identity), or is no attention layer in the teacher.
void restore_layers(Model& student, const Model& teacher, const std::vector<std::int64_t>& layers, const std::string& place);

// The configuration of the model that restore_layers makes, from configurations alone; the same errors.
ModelConfig restored_config(const ModelConfig& student, const ModelConfig& teacher, const std::vector<std::int64_t>& layers,
                            const std::string& place);

// Layers whose active mixer is attention (full or sliding window), in order.
std::vector<std::int64_t> attention_layers(const ModelConfig& config);

}  // namespace molt
