#include "formats/family.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "base/counted.h"
#include "base/error.h"
#include "formats/mixer_keys.h"
#include "formats/rotary_keys.h"

namespace molt {
namespace family_table {

constexpr const char* shared = R"("hidden_act": "silu", "rms_norm_eps": 1e-6,
  "tie_word_embeddings": false, "rope_theta": 10000.0)";

std::string defaults_with(const std::string& own) {
  return concat("{", shared, ", ", own, "}");
}

const std::string mistral_defaults =
    defaults_with(R"("head_dim": null, "num_key_value_heads": 8, "max_position_embeddings": 131072, "sliding_window": 4096)");
const std::string llama_defaults = defaults_with(R"("head_dim": null, "num_key_value_heads": null,
  "max_position_embeddings": 2048, "attention_bias": false, "mlp_bias": false)");
constexpr const char* qwen = R"("num_key_value_heads": 32, "max_position_embeddings": 32768, "use_sliding_window": false,
  "sliding_window": 4096, "max_window_layers": 28)";
const std::string qwen2_defaults = defaults_with(concat(qwen, R"(, "head_dim": null)"));
const std::string qwen3_defaults = defaults_with(concat(qwen, R"(, "head_dim": 128, "attention_bias": false)"));
const std::string hybrid_defaults =
    defaults_with(R"("head_dim": null, "num_key_value_heads": 8, "max_position_embeddings": 131072, "sliding_window": 4096,
      "ssm_cfg": {"d_xb": null, "dt_rank": "auto", "d_conv": 4, "bias": false, "conv_bias": true, "dt_proj_bias": true,
        "repeat_kv_before_conv": true, "dt_min": 0.001, "dt_max": 0.1, "dt_init": "random", "dt_scale": 1.0, "dt_init_floor": 1e-4,
        "activation": "silu"})");

// Settings that have one supported value: key, value, what another one would mean.
struct Fixed {
  const char* section;
  const char* key;
  const char* value;
  const char* meaning;
};
constexpr Fixed fixed[] = {
    {"", "hidden_act", R"("silu")", "the gated SiLU MLP"},
    {"", "quantization_config", "null", "weights that are not quantised"},
    {"ssm_cfg", "bias", "false", "Mamba projections without biases"},
    {"ssm_cfg", "dt_proj_bias", "true", "a bias of dt"},
};
constexpr Fixed attention_without_biases = {"", "attention_bias", "false", "attention without biases in this family"};
constexpr Fixed mlp_without_biases = {"", "mlp_bias", "false", "an MLP without biases in this family"};

void check_rule(const Fixed& rule, const Json& config, const std::string& place) {
  const bool nested = *rule.section != '\0';
  if (nested && (!config.contains(rule.section) || !config[rule.section].is_object())) return;
  const Json& parent = nested ? config[rule.section] : config;
  auto found = parent.find(rule.key);
  if (found == parent.end() || found->is_null() || *found == Json::parse(rule.value)) return;
  fail(place, ": ", nested ? concat(rule.section, ".") : "", rule.key, ": found ", to_line(*found), ", expected ", rule.value,
       " (", rule.meaning, ")");
}

void check_fixed(const Json& config, const Family& family, const std::string& place) {
  for (const Fixed& rule : fixed) check_rule(rule, config, place);
  const auto never = [](const FamilyOption& option) { return !option.key && !option.value; };
  if (never(family.qkv_bias)) check_rule(attention_without_biases, config, place);
  if (never(family.mlp_bias)) check_rule(mlp_without_biases, config, place);
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

// Sets the value at a path, making the objects on the way.
void set_path(Json& config, std::string path, const Json& value, const std::string& place) {
  Json* object = &config;
  for (std::size_t dot; (dot = path.find('.')) != std::string::npos; path.erase(0, dot + 1)) {
    object = &(*object)[path.substr(0, dot)];
    require(object->is_null() || object->is_object(), place, ": ", path.substr(0, dot), ": found ", to_line(*object),
            ", expected an object");
  }
  (*object)[path] = value;
}

void complete_options(Json& config, const Family& family, const std::string& place) {
  if (!family.layout) config.erase("molt");  // somebody else's
  for (const auto& [path, option] : family.options()) {
    const Json found = option.key ? value_at(config, option.key) : Json();
    require(found.is_null() || found.is_boolean(), place, ": ", option.key ? option.key : "", ": found ", to_line(found),
            ", expected true or false");
    set_path(config, path, found.is_null() ? option.value : found.get<bool>(), place);
  }
}

std::vector<std::string> plain_layout(const Json& config, const std::string& place) {
  constexpr std::int64_t most_layers = 10'000;
  const auto layers = get<std::int64_t>(config, "num_hidden_layers", place);
  require(layers >= 0 && layers <= most_layers, place, ": num_hidden_layers: found ", layers, ", expected 0 to ", most_layers);
  return std::vector<std::string>(static_cast<std::size_t>(layers), "t");
}

// Qwen's layers, one letter each; a window that no layer has becomes null.
std::vector<std::string> windowed_layout(Json& config, std::vector<std::string> layout, const std::string& place) {
  if (!get<bool>(config, "use_sliding_window", place)) config["sliding_window"] = nullptr;
  const bool has_window = !config["sliding_window"].is_null();
  const auto types = get_or<std::vector<std::string>>(config, "layer_types", {}, place);
  if (types.empty()) {
    const auto full = get<std::int64_t>(config, "max_window_layers", place);
    for (std::size_t i = 0; i < layout.size(); ++i) {
      if (has_window && static_cast<std::int64_t>(i) >= full) layout[i] = "swa";
    }
  } else {
    require(types.size() == layout.size(), place, ": layer_types: found ", counted(std::ssize(types), "layer"),
            ", expected num_hidden_layers, ", layout.size());
  }
  for (std::size_t i = 0; i < types.size(); ++i) {
    const bool windowed = types[i] == "sliding_attention";
    require(windowed || types[i] == "full_attention", place, ": layer_types[", i, "]: found \"", types[i],
            "\", expected full_attention or sliding_attention");
    require(!windowed || has_window, place, ": layer_types[", i,
            "]: found sliding_attention, expected full_attention without use_sliding_window and sliding_window");
    layout[i] = windowed ? "swa" : "t";
  }
  if (std::find(layout.begin(), layout.end(), "swa") == layout.end()) config["sliding_window"] = nullptr;
  return layout;
}

void complete_layout(Json& config, const Family& family, const std::string& place) {
  std::vector<std::string> layout = plain_layout(config, place);
  if (family.layout) {
    const std::size_t layers = layout.size();
    layout = get<std::vector<std::string>>(config, "hybrid_block_layout", place);
    require(layout.size() == layers, place, ": hybrid_block_layout: found ", layout.size(),
            " letters, expected num_hidden_layers, ", layers);
  }
  if (family.windows == Windows::none) config["sliding_window"] = nullptr;
  if (family.windows == Windows::by_layer) layout = windowed_layout(config, std::move(layout), place);
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

// Whether the family's files can say these values of its options; two options of one key must agree.
bool can_say(const Family& family, const std::map<std::string, bool>& values) {
  std::map<std::string, bool> by_key;
  for (const auto& [path, option] : family.options()) {
    const auto wanted = values.find(path);
    if (wanted == values.end()) continue;
    if (!option.key && option.value != wanted->second) return false;
    if (option.key && by_key.try_emplace(option.key, wanted->second).first->second != wanted->second) return false;
  }
  return true;
}

bool expresses(const Family& family, const ModelConfig& model) {
  bool full = true, windowed = true, mixed = true;  // attention alone: over everything, over a window, some of each
  for (const BlockConfig& block : model.blocks) {
    const std::string type = block.identity ? "identity" : block.mixer().type();
    full = full && type == "attention";
    windowed = windowed && type == "sliding_window";
    mixed = mixed && (type == "attention" || type == "sliding_window");
    if (block.identity) continue;
    std::map<std::string, bool> values{{mlp_bias_path, block.mlp.bias}};
    for (const auto& [path, value] : mixer_keys(block.mixer())) {
      if (value.is_boolean()) values[path] = value.get<bool>();
    }
    if (!can_say(family, values)) return false;
  }
  switch (family.windows) {
    case Windows::none:
      return full;
    case Windows::all:
      return family.layout || full || windowed;
    case Windows::by_layer:
      return mixed;
  }
  return false;
}

}  // namespace family_table

std::vector<std::pair<const char*, FamilyOption>> Family::options() const {
  return {{"molt.attention.qkv_bias", qkv_bias},
          {"molt.attention.output_bias", output_bias},
          {"molt.attention.qk_norm", qk_norm},
          {mlp_bias_path, mlp_bias}};
}

const std::vector<Family>& families() {
  using namespace family_table;
  constexpr FamilyOption no{false}, yes{true}, attention_bias{false, "attention_bias"}, mlp_bias{false, "mlp_bias"};
  static const std::vector<Family> table = {
      // model_type, architecture, windows, layout, qkv_bias, output_bias, qk_norm, mlp_bias, defaults
      {"mistral", "MistralForCausalLM", Windows::all, false, no, no, no, no, mistral_defaults.c_str()},
      {"llama", "LlamaForCausalLM", Windows::none, false, attention_bias, attention_bias, no, mlp_bias, llama_defaults.c_str()},
      {"qwen2", "Qwen2ForCausalLM", Windows::by_layer, false, yes, no, no, no, qwen2_defaults.c_str()},
      {"qwen3", "Qwen3ForCausalLM", Windows::by_layer, false, attention_bias, attention_bias, yes, no, qwen3_defaults.c_str()},
      {"apriel_hybrid_ssm",
       "AprielHybridSSMForCausalLM",
       Windows::all,
       true,
       {false, "molt.attention.qkv_bias"},
       {false, "molt.attention.output_bias"},
       {false, "molt.attention.qk_norm"},
       {false, mlp_bias_path},
       hybrid_defaults.c_str()},
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
            to_line(Json(architectures)), ", expected [\"", family.architecture, "\"]");
    return family;
  }
  fail(place, ": model_type: found \"", type, "\", expected one of ", known);
}

const Family& family_for(const ModelConfig& model, const Json& like) {
  const Json type = like.is_object() ? like.value("model_type", Json()) : Json();
  const Family* first = nullptr;
  for (const Family& family : families()) {
    if (!family_table::expresses(family, model)) continue;
    if (type == family.model_type) return family;
    if (!first) first = &family;
  }
  return *first;
}

Json complete_config(const Json& config, const Family& family, const std::string& place) {
  using namespace family_table;
  check_fixed(config, family, place);
  Json complete = config;
  merge_missing(complete, Json::parse(family.defaults));
  complete["rope_parameters"] = rotary_json(read_rotary(complete, place));
  for (const char* key : {"rope_theta", "rope_scaling", "original_max_position_embeddings"}) complete.erase(key);
  complete_options(complete, family, place);
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
      {"mlp.down.weight", "", "mlp.down_proj.weight"},        {"mlp.gate_up.bias", "gate", "mlp.gate_proj.bias"},
      {"mlp.gate_up.bias", "up", "mlp.up_proj.bias"},         {"mlp.down.bias", "", "mlp.down_proj.bias"},
  };
  return names;
}

bool is_ignorable_tensor(const std::string& name, const ModelConfig& model) {
  return name.ends_with("rotary_emb.inv_freq") || (model.tied_embeddings && name == "lm_head.weight");
}

}  // namespace molt
