#include "formats/rotary_keys.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace molt {
namespace rotary_keys {

bool filled(const Json& config, const char* key) {
  return config.contains(key) && !config[key].is_null() && !(config[key].is_object() && config[key].empty());
}

// The object of settings and its name for messages; settings of several kinds of layers and turning a part of a head are refused.
struct Settings {
  Json values = Json::object();
  std::string place;

  bool has(const char* key) const { return values.contains(key) && !values[key].is_null(); }

  double number(const char* key) const {
    const auto value = get<double>(values, key, place);
    require(std::isfinite(value) && value > 0, place, ": ", key, ": found ", value, ", expected a positive number");
    return value;
  }
  // transformers takes the usual value for 0, too.
  double number_or(const char* key, double otherwise) const { return has(key) && values[key] != 0 ? number(key) : otherwise; }
};

Settings settings_of(const Json& config, const std::string& place) {
  Settings settings{.place = place};
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (!filled(config, key)) continue;
    settings = {config[key], place + ": " + key};
    break;
  }
  require(settings.values.is_object(), settings.place, ": found ", to_line(settings.values), ", expected an object");
  for (const auto& [key, value] : settings.values.items()) {
    require(!value.is_object(), settings.place, ": ", key, ": found ", to_line(value), ", expected one setting for all layers");
  }
  for (const Json* holder : {&config, static_cast<const Json*>(&settings.values)}) {
    const Json part = holder->value("partial_rotary_factor", Json());
    require(part.is_null() || part == 1.0, place, ": partial_rotary_factor: found ", to_line(part),
            ", expected 1.0 (rotary positions over the whole head)");
  }
  if (!settings.has("rope_theta")) settings.values["rope_theta"] = get_or<double>(config, "rope_theta", 10000.0, place);
  return settings;
}

std::int64_t original_positions(const Json& config, const Settings& settings, const std::string& place) {
  constexpr const char* key = "original_max_position_embeddings";
  const bool in_file = filled(config, key), in_settings = settings.has(key);
  const Json& holder = in_file || !in_settings ? config : settings.values;
  const char* name = in_file || in_settings ? key : "max_position_embeddings";
  const auto positions = get<std::int64_t>(holder, name, in_file || !in_settings ? place : settings.place);
  require(positions > 0, place, ": ", name, ": found ", positions, ", expected at least 1");
  return positions;
}

double yarn_scale(double factor, double scale) {
  return factor <= 1 ? 1.0 : 0.1 * scale * std::log(factor) + 1.0;
}

void read_yarn(RotaryConfig& rotary, const Settings& settings, std::int64_t max_positions) {
  rotary.factor = settings.values.contains("factor") && settings.values["factor"].is_null()
                      ? static_cast<double>(max_positions) / static_cast<double>(rotary.original_positions)
                      : settings.number("factor");
  const double scale = settings.number_or("mscale", 0), scale_all = settings.number_or("mscale_all_dim", 0);
  if (settings.has("attention_factor")) {
    rotary.attention_factor = settings.number("attention_factor");
  } else if (scale != 0 && scale_all != 0) {
    rotary.attention_factor = yarn_scale(rotary.factor, scale) / yarn_scale(rotary.factor, scale_all);
  }
  rotary.beta_fast = settings.number_or("beta_fast", rotary.beta_fast);
  rotary.beta_slow = settings.number_or("beta_slow", rotary.beta_slow);
  rotary.truncate = get_or<bool>(settings.values, "truncate", true, settings.place);
}

}  // namespace rotary_keys

RotaryConfig read_rotary(const Json& config, const std::string& place) {
  using namespace rotary_keys;
  const Settings settings = settings_of(config, place);
  RotaryConfig rotary;
  rotary.base = settings.number("rope_theta");
  const char* word = settings.has("rope_type") || !settings.has("type") ? "rope_type" : "type";
  rotary.type = get_or<std::string>(settings.values, word, "default", settings.place);
  if (rotary.type == "default") return rotary;
  const auto max_positions = get<std::int64_t>(config, "max_position_embeddings", place);
  if (rotary.type == "dynamic") rotary.original_positions = max_positions;
  if (rotary.type == "yarn" || rotary.type == "llama3") rotary.original_positions = original_positions(config, settings, place);
  if (rotary.type == "yarn") {
    read_yarn(rotary, settings, max_positions);
  } else if (rotary.type == "linear" || rotary.type == "dynamic" || rotary.type == "llama3") {
    rotary.factor = settings.number("factor");
  } else {
    fail(settings.place, ": ", word, ": found \"", rotary.type, "\", expected default, linear, dynamic, yarn or llama3");
  }
  if (rotary.type == "llama3") {
    rotary.low_frequency_factor = settings.number("low_freq_factor");
    rotary.high_frequency_factor = settings.number("high_freq_factor");
  }
  rotary.check(settings.place);
  return rotary;
}

Json rotary_json(const RotaryConfig& rotary) {
  Json settings = {{"rope_type", rotary.type}, {"rope_theta", rotary.base}};
  if (rotary.type == "default") return settings;
  settings["factor"] = rotary.factor;
  if (rotary.type == "yarn" || rotary.type == "llama3") {
    settings["original_max_position_embeddings"] = rotary.original_positions;
  }
  if (rotary.type == "yarn") {
    if (rotary.attention_factor) settings["attention_factor"] = *rotary.attention_factor;
    settings["beta_fast"] = rotary.beta_fast;
    settings["beta_slow"] = rotary.beta_slow;
    settings["truncate"] = rotary.truncate;
  }
  if (rotary.type == "llama3") {
    settings["low_freq_factor"] = rotary.low_frequency_factor;
    settings["high_freq_factor"] = rotary.high_frequency_factor;
  }
  return settings;
}

void set_rotary(OrderedJson& config, const RotaryConfig& rotary) {
  OrderedJson settings(rotary_json(rotary));
  config.erase("original_max_position_embeddings");  // would outrank what the settings say
  if (config.contains("rope_parameters") && config["rope_parameters"].is_object()) {
    config["rope_parameters"] = settings;
    for (const char* key : {"rope_theta", "rope_scaling"}) config.erase(key);
    return;
  }
  config["rope_theta"] = rotary.base;
  settings.erase("rope_theta");
  config.erase("rope_scaling");
  if (rotary.type != "default") config["rope_scaling"] = settings;
}

}  // namespace molt
