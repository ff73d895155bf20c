// What a model is made of, as data: read from the published YAML pattern form or from a Hugging Face config.json (formats/).
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/config.h"
#include "model/mixer.h"
#include "model/rotary.h"

namespace molt {

struct MlpConfig {
  std::string type = "gated";
  std::string activation = "silu";
  std::int64_t intermediate_size = 0;
  bool bias = false;
  void visit(ConfigVisitor& visitor);
};

// One kind of block: one or more named mixers, one of them active. Copyable.
struct BlockConfig {
  std::map<std::string, std::shared_ptr<const MixerConfig>> mixers;  // key: the mixer's name in parameter names, usually its type
  std::string active;
  MlpConfig mlp;
  bool identity = false;  // letter "i": hidden states pass the whole block unchanged; it has no parameters
  const MixerConfig& mixer() const { return *mixers.at(active); }
  // The same settings with this mixer alone.
  BlockConfig with_mixer(std::shared_ptr<const MixerConfig> mixer) const;
  void visit(ConfigVisitor& visitor);  // `mixer: {type: …}` and `mlp: {…}` as published
};

struct ModelConfig {
  std::int64_t hidden_size = 0;
  std::int64_t vocabulary = 0;
  double norm_epsilon = 1e-5;
  bool tied_embeddings = false;
  std::int64_t max_positions = 0;
  RotaryConfig rotary;
  std::vector<BlockConfig> blocks;  // one a layer, in order

  std::int64_t num_layers() const { return static_cast<std::int64_t>(blocks.size()); }
  // Letters of hybrid_block_layout, one a layer: {"t", "m2", …}.
  std::vector<std::string> layout() const;
  // Reads and describes the YAML form: sizes, rotary, and `decoder:` as published (decoder.h).
  void visit(ConfigVisitor& visitor);
};

}  // namespace molt
