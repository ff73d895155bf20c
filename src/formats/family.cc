#include "formats/family.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace molt {
namespace family_table {

constexpr const char* attention_key_defaults = R"("head_dim": null, "hidden_act": "silu", "rms_norm_eps": 1e-6,
  "tie_word_embeddings": false, "rope_theta": 10000.0, "attention_bias": false, "mlp_bias": false)";

const std::string mistral_defaults = concat(
    "{", attention_key_defaults, R"(, "num_key_value_heads": 8, "max_position_embeddings": 131072, "sliding_window": 4096})");
const std::string llama_defaults =
    concat("{", attention_key_defaults, R"(, "num_key_value_heads": null, "max_position_embeddings": 2048})");
const std::string hybrid_defaults =
    concat("{", attention_key_defaults, R"(, "num_key_value_heads": 8, "max_position_embeddings": 131072, "sliding_window": 4096,
      "ssm_cfg": {"d_xb": null, "dt_rank": "auto", "d_conv": 4, "bias": false, "conv_bias": true, "dt_proj_bias": true,
        "repeat_kv_before_conv": true, "dt_min": 0.001, "dt_max": 0.1, "dt_init": "random", "dt_scale": 1.0, "dt_init_floor": 1e-4,
        "activation": "silu"}})");

// Settings that have one supported value: key, value, what another one would mean.
struct Fixed {
  const char* section;
  const char* key;
  const char* value;
  const char* meaning;
};
constexpr Fixed fixed[] = {
    {"", "hidden_act", R"("silu")", "the gated SiLU MLP"},
    {"", "attention_bias", "false", "attention without biases"},
    {"", "mlp_bias", "false", "an MLP without biases"},
    {"", "rope_scaling", "null", "rotary positions without scaling"},
    {"", "partial_rotary_factor", "1.0", "rotary positions over the whole head"},
    {"", "quantization_config", "null", "weights that are not quantised"},
    {"rope_parameters", "rope_type", R"("default")", "rotary positions without scaling"},
    {"rope_parameters", "partial_rotary_factor", "1.0", "rotary positions over the whole head"},
    {"ssm_cfg", "bias", "false", "Mamba projections without biases"},
    {"ssm_cfg", "dt_proj_bias", "true", "a bias of dt"},
};

void check_fixed(const Json& config, const std::string& place) {
  for (const Fixed& rule : fixed) {
    const bool nested = *rule.section != '\0';
    if (nested && (!config.contains(rule.section) || !config[rule.section].is_object())) continue;
    const Json& parent = nested ? config[rule.section] : config;
    auto found = parent.find(rule.key);
    if (found == parent.end() || found->is_null() || *found == Json::parse(rule.value)) continue;
    if (found->is_object() && found->value("rope_type", Json()) == "default") continue;  // rope_scaling that scales nothing
    fail(place, ": ", nested ? concat(rule.section, ".") : "", rule.key, ": found ", to_line(*found), ", expected ", rule.value,
         " (", rule.meaning, ")");
  }
}

void merge_missing(Json& config, const Json& defaults) {
  for (const auto& [key, value] : defaults.items()) {
    if (!config.contains(key)) {
      config[key] = value;
    } else if (value.is_object() && config[key].is_object()) {
      merge_missing(config[key], value);
    }
  }
}

// transformers 5 writes rope_parameters: {rope_type, rope_theta}, older ones rope_theta beside rope_scaling.
void flatten_rotary(Json& config, const std::string& place) {
  auto parameters = config.find("rope_parameters");
  if (parameters == config.end() || parameters->is_null()) return;
  config["rope_theta"] = get<double>(*parameters, "rope_theta", place + ": rope_parameters");
}

std::vector<std::string> plain_layout(const Json& config, const std::string& place) {
  constexpr std::int64_t most_layers = 10'000;
  const auto layers = get<std::int64_t>(config, "num_hidden_layers", place);
  require(layers >= 0 && layers <= most_layers, place, ": num_hidden_layers: found ", layers, ", expected 0 to ", most_layers);
  return std::vector<std::string>(static_cast<std::size_t>(layers), "t");
}

void complete_layout(Json& config, const Family& family, const std::string& place) {
  std::vector<std::string> layout = plain_layout(config, place);
  if (family.layout) {
    const std::size_t layers = layout.size();
    layout = get<std::vector<std::string>>(config, "hybrid_block_layout", place);
    require(layout.size() == layers, place, ": hybrid_block_layout: found ", layout.size(),
            " letters, expected num_hidden_layers, ", layers);
  }
  if (!family.windows) config["sliding_window"] = nullptr;
  // Without a letter of its own the window is every attention layer's, as in Mistral.
  const bool has_letter = std::find(layout.begin(), layout.end(), "swa") != layout.end();
  if (!config["sliding_window"].is_null() && !has_letter)
    std::replace(layout.begin(), layout.end(), std::string("t"), std::string("swa"));
  config["hybrid_block_layout"] = layout;
}

// Keys whose null, absence or word stands for a number made from other keys.
void resolve(Json& config, const std::string& place) {
  if (config.contains("num_attention_heads")) {
    const auto hidden = get<std::int64_t>(config, "hidden_size", place),
               heads = get<std::int64_t>(config, "num_attention_heads", place);
    require(heads > 0, place, ": num_attention_heads: found ", heads, ", expected at least 1");
    if (config["num_key_value_heads"].is_null()) config["num_key_value_heads"] = heads;
    if (config["head_dim"].is_null()) config["head_dim"] = hidden / heads;
  }
  if (auto ssm = config.find("ssm_cfg"); ssm != config.end() && ssm->is_object()) {
    const auto hidden = get<std::int64_t>(config, "hidden_size", place);
    if ((*ssm)["d_xb"].is_null()) (*ssm)["d_xb"] = hidden;
    if ((*ssm)["dt_rank"] == "auto") (*ssm)["dt_rank"] = hidden / 16 + (hidden % 16 != 0);
  }
}

}  // namespace family_table

const std::vector<Family>& families() {
  using namespace family_table;
  static const std::vector<Family> table = {
      {"mistral", "MistralForCausalLM", true, false, mistral_defaults.c_str()},
      {"llama", "LlamaForCausalLM", false, false, llama_defaults.c_str()},
      {"apriel_hybrid_ssm", "AprielHybridSSMForCausalLM", true, true, hybrid_defaults.c_str()},
  };
  return table;
}

const Family& family_of(const Json& config, const std::string& place) {
  require(config.is_object(), place, ": expected an object");
  const auto type = get<std::string>(config, "model_type", place);
  std::string known;
  for (const Family& family : families()) {
    known += concat(known.empty() ? "" : ", ", family.model_type);
    if (type != family.model_type) continue;
    const auto architectures = get_or<std::vector<std::string>>(config, "architectures", {family.architecture}, place);
    require(architectures == std::vector<std::string>{family.architecture}, place, ": architectures: found ",
            to_line(config["architectures"]), ", expected [\"", family.architecture, "\"]");
    return family;
  }
  fail(place, ": model_type: found \"", type, "\", expected one of ", known);
}

const Family& family_for(const ModelConfig& model, const Json& like) {
  const std::vector<std::string> layout = model.layout();
  const bool full = std::all_of(layout.begin(), layout.end(), [](const std::string& letter) { return letter == "t"; });
  const bool windowed = std::all_of(layout.begin(), layout.end(), [](const std::string& letter) { return letter == "swa"; });
  auto expresses = [&](const Family& family) { return family.layout || full || (windowed && family.windows); };
  const Json type = like.is_object() ? like.value("model_type", Json()) : Json();
  const Family* first = nullptr;
  for (const Family& family : families()) {
    if (!expresses(family)) continue;
    if (type == family.model_type) return family;
    if (!first) first = &family;
  }
  return *first;
}

Json complete_config(const Json& config, const Family& family, const std::string& place) {
  using namespace family_table;
  check_fixed(config, place);
  Json complete = config;
  merge_missing(complete, Json::parse(family.defaults));
  flatten_rotary(complete, place);
  resolve(complete, place);
  complete_layout(complete, family, place);
  return complete;
}

const std::vector<StoredName>& model_tensor_names() {
  static const std::vector<StoredName> names = {
      {"embedding.weight", "", "model.embed_tokens.weight"},
      {"final_norm.weight", "", "model.norm.weight"},
      {"head.weight", "", "lm_head.weight"},
  };
  return names;
}

const std::vector<StoredName>& block_tensor_names() {
  static const std::vector<StoredName> names = {
      {"mixer_norm.weight", "", "input_layernorm.weight"},    {"mlp_norm.weight", "", "post_attention_layernorm.weight"},
      {"mlp.gate_up.weight", "gate", "mlp.gate_proj.weight"}, {"mlp.gate_up.weight", "up", "mlp.up_proj.weight"},
      {"mlp.down.weight", "", "mlp.down_proj.weight"},
  };
  return names;
}

bool is_ignorable_tensor(const std::string& name, const ModelConfig& model) {
  return name.ends_with("rotary_emb.inv_freq") || (model.tied_embeddings && name == "lm_head.weight");
}

}  // namespace molt
