#include "formats/config_json.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "formats/mixer_keys.h"

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
          {"max_position_embeddings", model.max_positions},
          {"rope_theta", model.rotary.base}};
}

// Adds the keys of every layer; what they share must agree.
void add_block_keys(std::map<std::string, Json>& keys, const ModelConfig& model) {
  std::map<std::string, std::size_t> first;
  for (std::size_t i = 0; i < model.blocks.size(); ++i) {
    const BlockConfig& block = model.blocks[i];
    if (block.identity) continue;
    std::map<std::string, Json> own = mixer_keys(block.mixer());
    own.insert(
        {{"intermediate_size", block.mlp.intermediate_size}, {"hidden_act", block.mlp.activation}, {"mlp_bias", block.mlp.bias}});
    for (auto& [path, value] : own) {
      first.try_emplace(path, i);
      const Json& held = keys.try_emplace(path, value).first->second;
      require(held == value, "layer ", i, ": ", path, " is ", to_line(value), ", but ", to_line(held), " in layer ", first[path],
              ": config.json holds one value for all layers");
    }
  }
}

void set(OrderedJson& config, const std::string& path, const Json& value) {
  if (path == "rope_theta" && config.contains("rope_parameters") && config["rope_parameters"].is_object()) {
    config["rope_parameters"]["rope_theta"] = value.get<double>();
    return;
  }
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
  if (!family.layout) {
    for (const char* key : {"hybrid_block_layout", "ssm_cfg", "molt"}) config.erase(key);
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
  model.rotary.base = positive(complete, "rope_theta", place);
  const auto layout = get<std::vector<std::string>>(complete, "hybrid_block_layout", place);
  std::map<std::string, BlockConfig> kinds;  // layers of one letter have one configuration
  for (std::size_t i = 0; i < layout.size(); ++i) {
    auto [kind, fresh] = kinds.try_emplace(layout[i]);
    if (fresh) {
      auto mixer = mixer_kind_by_letter(layout[i], concat(place, ": hybrid_block_layout[", i, "]")).make_config();
      read_mixer_keys(*mixer, complete, place);
      kind->second = kind->second.with_mixer(std::move(mixer));
      if (!kind->second.identity) kind->second.mlp.intermediate_size = size_of(complete, "intermediate_size", place);
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
  const bool same_family = like.is_object() && like.value("model_type", OrderedJson()) == family.model_type;
  OrderedJson config = same_family ? like : in_family(like, family);
  const Json meant = same_family ? complete_config(Json(like), family, "config.json") : Json();
  for (const auto& [path, value] : keys) {
    if (path == "hybrid_block_layout" && !family.layout) continue;
    if (path == "sliding_window" && !family.windows) continue;
    if (!same_family || value_at(meant, path) != value) set(config, path, value);
  }
  config[config.contains("dtype") ? "dtype" : "torch_dtype"] = dtype;
  // Refuses here what reading would refuse.
  complete_config(Json(config), family, "config.json of the export");
  return config;
}

}  // namespace molt
