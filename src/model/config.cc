#include "model/config.h"

#include <utility>

#include "base/error.h"
#include "model/decoder.h"

namespace molt {

void MlpConfig::visit(ConfigVisitor& v) {
  v.choice("type", type, {"gated"}, "down(activation(gate(x)) * up(x))");
  v.choice("activation", activation, {"silu"}, "Of the gate");
  v.field("intermediate_size", intermediate_size, "Width between the projections");
  v.field("bias", bias, "Biases on the projections");
}

BlockConfig BlockConfig::with_mixer(std::shared_ptr<const MixerConfig> mixer) const {
  BlockConfig block;
  block.active = mixer->type();
  block.identity = block.active == "identity";
  block.mlp = mlp;
  block.mixers[block.active] = std::move(mixer);
  return block;
}

void BlockConfig::visit(ConfigVisitor& v) {
  v.section("mixer", "What mixes the tokens; the keys beside `type` are the type's own", [&](ConfigVisitor& m) {
    std::vector<std::string> types;
    for (const MixerKind& kind : mixer_kinds()) types.push_back(kind.type);
    const std::string present = identity ? "identity" : mixers.empty() ? "" : mixer().type();
    std::string type = present.empty() ? "attention" : present;
    m.choice("type", type, types, "Kind of mixer");
    std::unique_ptr<MixerConfig> config =
        type == present && !mixers.empty() ? mixer().clone() : mixer_kind(type, m.place()).make_config();
    config->visit(m);
    if (m.reading()) *this = with_mixer(std::move(config));
  });
  if (!identity) v.field("mlp", mlp, "The feed-forward half of the block");
}

std::vector<std::string> ModelConfig::layout() const {
  std::vector<std::string> letters;
  for (const BlockConfig& block : blocks) {
    letters.push_back(mixer_kind(block.identity ? "identity" : block.mixer().type(), "layout").letter);
  }
  return letters;
}

void ModelConfig::visit(ConfigVisitor& v) {
  v.field("hidden_size", hidden_size, "Width of the hidden states");
  v.field("vocabulary", vocabulary, "Tokens that the embeddings know");
  v.field("norm_epsilon", norm_epsilon, "Added to the mean square in every RMSNorm");
  v.field("tied_embeddings", tied_embeddings, "The head's weight is the embedding");
  v.field("max_positions", max_positions, "Longest sequence that the model is meant for; 0: unknown");
  v.field("rotary", rotary, "Rotary position embedding of the attention layers");
  DecoderConfig decoder = DecoderConfig::of(blocks);
  v.section("decoder", "The layers", [&](ConfigVisitor& d) {
    decoder.visit(d);
    if (d.reading()) blocks = decoder.expand(d.place());
  });
}

}  // namespace molt
