#include "formats/config_json.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "formats/mixer_keys.h"
#include "formats/rotary_keys.h"

namespace molt {
namespace config_json {

std::int64_t size_of(const Json& config, const char* key, const std::string& place, std::int64_t largest = 1 << 24) {
  const auto value = get<std::int64_t>(config, key, place);
  require(value >= 1 && value <= largest, place, ": ", key, ": found ", value, ", expected 1 to ", largest);
  return value;
}

double positive(const Json& config, const char* key, const std::string& place) {
  const auto value = get<double>(config, key, place);
  require(std::isfinite(value) && value > 0, place, ": ", key, ": found ", value, ", expected a positive number");
  return value;
}

// What the whole model holds once, by path in config.json.
std::map<std::string, Json> model_keys(const ModelConfig& model) {
  return {{"vocab_size", model.vocabulary},
          {"hidden_size", model.hidden_size},
          {"num_hidden_layers", model.num_layers()},
          {"rms_norm_eps", model.norm_epsilon},
          {"tie_word_embeddings", model.tied_embeddings},
          {"max_position_embeddings", model.max_positions}};
}

// Adds the keys of every layer; what they share must agree.
void add_block_keys(std::map<std::string, Json>& keys, const ModelConfig& model) {
  std::map<std::string, std::size_t> first;
  for (std::size_t i = 0; i < model.blocks.size(); ++i) {
    const BlockConfig& block = model.blocks[i];
    if (block.identity) continue;
    std::map<std::string, Json> own = mixer_keys(block.mixer());
    own.insert({{"intermediate_size", block.mlp.intermediate_size},
                {"hidden_act", block.mlp.activation},
                {mlp_bias_path, block.mlp.bias}});
    for (auto& [path, value] : own) {
      first.try_emplace(path, i);
      const Json& held = keys.try_emplace(path, value).first->second;
      require(held == value, "layer ", i, ": ", path, " is ", to_line(value), ", but ", to_line(held), " in layer ", first[path],
              ": config.json holds one value for all layers");
    }
  }
}

// Paths as completed config.jsons have them, turned into the family's own keys. Those of options that the family has no key for
// are dropped: family_for has seen to it that they say what its code does.
void translate(std::map<std::string, Json>& keys, const Family& family) {
  for (const auto& [path, option] : family.options()) {
    const auto found = keys.find(path);
    if (found == keys.end()) continue;
    const Json value = found->second;
    keys.erase(found);
    if (option.key) keys[option.key] = value;
  }
  if (family.layout) return;
  const Json layout = keys.at("hybrid_block_layout");
  keys.erase("hybrid_block_layout");
  if (family.windows == Windows::none) keys.erase("sliding_window");
  if (family.windows != Windows::by_layer) return;
  Json types = Json::array();
  for (const Json& letter : layout) types.push_back(letter == "swa" ? "sliding_attention" : "full_attention");
  keys["layer_types"] = types;
  keys["use_sliding_window"] = std::find(layout.begin(), layout.end(), "swa") != layout.end();
}

// The same keys with the values that a config.json of this family gives them, null for those that it does not have.
std::map<std::string, Json> meant_by(const OrderedJson& config, const Family& family, const std::map<std::string, Json>& keys) {
  const Json complete = complete_config(Json(config), family, "config.json");
  std::map<std::string, Json> meant;
  for (const char* path : {"hybrid_block_layout", "sliding_window"}) meant[path] = complete[path];
  for (const auto& [path, option] : family.options()) meant[path] = value_at(complete, path);
  translate(meant, family);
  for (const auto& [path, value] : keys) meant.try_emplace(path, value_at(complete, path));
  return meant;
}

bool is_default_option(const Family& family, const std::string& path, const Json& value) {
  const auto options = family.options();
  return std::any_of(options.begin(), options.end(),
                     [&](const auto& row) { return row.second.key && row.second.key == path && row.second.value == value; });
}

void set(OrderedJson& config, const std::string& path, const Json& value) {
  OrderedJson* object = &config;
  std::string key = path;
  for (std::size_t dot; (dot = key.find('.')) != std::string::npos; key.erase(0, dot + 1))
    object = &(*object)[key.substr(0, dot)];
  (*object)[key] = OrderedJson(value);
}

void merge_missing(OrderedJson& config, const OrderedJson& defaults) {
  for (const auto& [key, value] : defaults.items()) {
    if (!config.contains(key)) {
      config[key] = value;
    } else if (value.is_object() && config[key].is_object()) {
      merge_missing(config[key], value);
    }
  }
}

// Turns another family's config.json (or none) into this family's, every key spelled out.
OrderedJson in_family(const OrderedJson& like, const Family& family) {
  OrderedJson config = like.is_object() ? like : OrderedJson::object();
  config["architectures"] = {family.architecture};
  config["model_type"] = family.model_type;
  config.erase("auto_map");
  // What other families say in their own words must not say it here.
  for (const char* key : {"hybrid_block_layout", "ssm_cfg", "molt", "attention_bias", "mlp_bias", "layer_types",
                          "use_sliding_window", "max_window_layers"}) {
    config.erase(key);
  }
  OrderedJson defaults = OrderedJson::parse(family.defaults);
  if (config.contains("rope_parameters")) defaults.erase("rope_theta");
  merge_missing(config, defaults);
  return config;
}

}  // namespace config_json

ModelConfig parse_model_config(const Json& config, const std::string& place) {
  using namespace config_json;
  const Json complete = complete_config(config, family_of(config, place), place);
  ModelConfig model;
  model.hidden_size = size_of(complete, "hidden_size", place);
  model.vocabulary = size_of(complete, "vocab_size", place);
  model.max_positions = size_of(complete, "max_position_embeddings", place, std::int64_t{1} << 40);
  model.norm_epsilon = positive(complete, "rms_norm_eps", place);
  model.tied_embeddings = get<bool>(complete, "tie_word_embeddings", place);
  model.rotary = read_rotary(complete, place);
  const auto layout = get<std::vector<std::string>>(complete, "hybrid_block_layout", place);
  std::map<std::string, BlockConfig> kinds;  // layers of one letter have one configuration
  for (std::size_t i = 0; i < layout.size(); ++i) {
    auto [kind, fresh] = kinds.try_emplace(layout[i]);
    if (fresh) {
      auto mixer = mixer_kind_by_letter(layout[i], concat(place, ": hybrid_block_layout[", i, "]")).make_config();
      read_mixer_keys(*mixer, complete, place);
      kind->second = kind->second.with_mixer(std::move(mixer));
      if (!kind->second.identity) {
        kind->second.mlp.intermediate_size = size_of(complete, "intermediate_size", place);
        kind->second.mlp.bias = value_at(complete, mlp_bias_path).get<bool>();
      }
    }
    model.blocks.push_back(kind->second);
  }
  return model;
}

OrderedJson make_config_json(const ModelConfig& model, const Family& family, const OrderedJson& like, const std::string& dtype) {
  using namespace config_json;
  std::map<std::string, Json> keys = model_keys(model);
  add_block_keys(keys, model);
  const std::vector<std::string> layout = model.layout();
  keys["hybrid_block_layout"] = layout;
  if (std::find(layout.begin(), layout.end(), "t") != layout.end()) keys.try_emplace("sliding_window", nullptr);
  if (model.max_positions == 0) keys.erase("max_position_embeddings");  // unknown
  require(model.rotary.type != "dynamic" || model.rotary.original_positions == model.max_positions,
          "rotary: original_positions is ", model.rotary.original_positions, ", expected max_positions ", model.max_positions,
          ", which config.json takes for it");
  translate(keys, family);
  const bool same_family = like.is_object() && like.value("model_type", OrderedJson()) == family.model_type;
  OrderedJson config = same_family ? like : in_family(like, family);
  const auto meant = same_family ? meant_by(like, family, keys) : std::map<std::string, Json>();
  for (const auto& [path, value] : keys) {
    if (same_family ? meant.at(path) != value : !is_default_option(family, path, value)) set(config, path, value);
  }
  if (rotary_json(read_rotary(Json(config), "config.json")) != rotary_json(model.rotary)) set_rotary(config, model.rotary);
  config[config.contains("dtype") ? "dtype" : "torch_dtype"] = dtype;
  // Refuses here what reading would refuse.
  complete_config(Json(config), family, "config.json of the export");
  return config;
}

}  // namespace molt
