// Small random models that the tests of this room generate with.
#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "model/mixers/attention/attention.h"
#include "model/mixers/mamba/mamba.h"
#include "model/model.h"

namespace molt::testing_infer {

constexpr std::int64_t kVocabulary = 67;

// One layer a name: "attention", "sliding_window" (of 5 tokens), "mamba", "identity". Logits are far enough apart that rounding
// decides nothing.
inline std::unique_ptr<Model> tiny_model(const std::vector<std::string>& layers, std::uint64_t seed = 1,
                                         at::Device device = at::kCPU, at::ScalarType dtype = at::kFloat) {
  ModelConfig config;
  config.hidden_size = 32;
  config.vocabulary = kVocabulary;
  config.max_positions = 512;
  for (const std::string& type : layers) {
    auto mixer = mixer_kind(type, "test").make_config();
    if (auto* attention = dynamic_cast<AttentionConfig*>(mixer.get())) {
      attention->heads = 4, attention->head_groups = 2, attention->head_size = 8, attention->window = 5;
    } else if (auto* mamba = dynamic_cast<MambaConfig*>(mixer.get())) {
      mamba->d_inner = 32, mamba->d_xb = 16, mamba->state_size = 8, mamba->dt_rank = 4;
    }
    BlockConfig block;
    block.identity = type == "identity";
    block.active = type;
    block.mixers[type] = std::move(mixer);
    block.mlp.intermediate_size = 48;
    config.blocks.push_back(block);
  }
  auto model = std::make_unique<Model>(config);
  model->initialise({.seed = seed, .standard_deviation = 0.25}, device, dtype);
  return model;
}

inline std::unique_ptr<Model> tiny_hybrid(at::Device device = at::kCPU, at::ScalarType dtype = at::kFloat) {
  return tiny_model({"attention", "mamba", "sliding_window", "identity", "mamba", "attention"}, 1, device, dtype);
}

// Deterministic, of different content for different `which`.
inline std::vector<std::int32_t> tiny_prompt(std::int64_t length, std::int64_t which = 0) {
  std::vector<std::int32_t> tokens;
  for (std::int64_t i = 0; i < length; ++i)
    tokens.push_back(static_cast<std::int32_t>((i * i * 7 + i * 11 + which * 23 + 3) % kVocabulary));
  return tokens;
}

}  // namespace molt::testing_infer
