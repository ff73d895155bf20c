#include "formats/mixer_keys.h"

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace molt {
namespace mixer_key_table {

struct Key {
  const char* type;
  const char* field;
  const char* path;
};

constexpr Key keys[] = {
    {"attention", "heads", "num_attention_heads"},
    {"attention", "head_groups", "num_key_value_heads"},
    {"attention", "head_size", "head_dim"},
    {"attention", "qkv_bias", "molt.attention.qkv_bias"},
    {"attention", "output_bias", "molt.attention.output_bias"},
    {"attention", "qk_norm", "molt.attention.qk_norm"},
    {"sliding_window", "heads", "num_attention_heads"},
    {"sliding_window", "head_groups", "num_key_value_heads"},
    {"sliding_window", "head_size", "head_dim"},
    {"sliding_window", "qkv_bias", "molt.attention.qkv_bias"},
    {"sliding_window", "output_bias", "molt.attention.output_bias"},
    {"sliding_window", "qk_norm", "molt.attention.qk_norm"},
    {"sliding_window", "window", "sliding_window"},
    {"mamba", "d_inner", "ssm_cfg.d_inner"},
    {"mamba", "d_xb", "ssm_cfg.d_xb"},
    {"mamba", "state_size", "ssm_cfg.d_state"},
    {"mamba", "dt_rank", "ssm_cfg.dt_rank"},
    {"mamba", "d_conv", "ssm_cfg.d_conv"},
    {"mamba", "repeat_kv_before_conv", "ssm_cfg.repeat_kv_before_conv"},
    {"mamba", "conv_bias", "ssm_cfg.conv_bias"},
    {"mamba", "dt_min", "ssm_cfg.dt_min"},
    {"mamba", "dt_max", "ssm_cfg.dt_max"},
    {"mamba", "dt_init_floor", "ssm_cfg.dt_init_floor"},
};

// A field's published path, or null.
const char* published_path(const std::string& type, const std::string& field) {
  for (const Key& key : keys) {
    if (type == key.type && field == key.field) return key.path;
  }
  return nullptr;
}

// Hands every field, whatever its type, to Derived::value(path, published, value).
template <class Derived>
class Fields : public ConfigVisitor {
 public:
  explicit Fields(std::string type) : type_(std::move(type)) {}

  void field(const char* name, bool& value, const char*) override { pass(name, value); }
  void field(const char* name, std::int64_t& value, const char*) override { pass(name, value); }
  void field(const char* name, double& value, const char*) override { pass(name, value); }
  void field(const char* name, std::string& value, const char*) override { pass(name, value); }
  void field(const char* name, std::vector<std::int64_t>& value, const char*) override { pass(name, value); }
  void field(const char* name, std::vector<double>& value, const char*) override { pass(name, value); }
  void field(const char* name, std::vector<std::string>& value, const char*) override { pass(name, value); }
  void field(const char* name, std::optional<std::int64_t>&, const char*) override { unsupported(name); }
  void field(const char* name, std::optional<double>&, const char*) override { unsupported(name); }
  void choice(const char* name, std::string& value, const std::vector<std::string>&, const char*) override { pass(name, value); }
  void section(const char* name, const char*, const Visit& visit) override {
    const std::string outer = std::exchange(prefix_, prefix_ + name + ".");
    visit(*this);
    prefix_ = outer;
  }
  void optional_section(const char* name, const char*, bool, const Visit&, const std::function<void()>&) override {
    unsupported(name);
  }
  void list(const char* name, const char*, std::size_t, const std::function<void(std::size_t, ConfigVisitor&)>&,
            const std::function<void()>&) override {
    unsupported(name);
  }
  void map(const char* name, const char*, const std::vector<std::string>&,
           const std::function<void(const std::string&, ConfigVisitor&)>&, const std::function<void()>&) override {
    unsupported(name);
  }

 private:
  template <class T>
  void pass(const char* name, T& value) {
    const char* published = published_path(type_, prefix_ + name);
    static_cast<Derived*>(this)->value(published ? published : concat("molt.", type_, ".", prefix_, name), published != nullptr,
                                       value);
  }
  void unsupported(const char* name) { MOLT_CHECK(false, type_, ".", name, ": config.json has no form for this kind of field"); }

  std::string type_, prefix_;
};

// The object that holds the last key of a path, or null; `path` becomes that key and `place` names the object.
const Json* parent_of(const Json& config, std::string& path, std::string& place) {
  const Json* object = &config;
  for (std::size_t dot; (dot = path.find('.')) != std::string::npos; path.erase(0, dot + 1)) {
    const std::string key = path.substr(0, dot);
    if (!object->is_object() || !object->contains(key)) return nullptr;
    object = &(*object)[key];
    place += ": " + key;
  }
  return object;
}

class KeyReader : public Fields<KeyReader> {
 public:
  KeyReader(const std::string& type, const Json& config, std::string place)
      : Fields(type), config_(config), place_(std::move(place)) {}

  template <class T>
  void value(std::string path, bool published, T& value) {
    std::string place = place_;
    const std::string whole = path;
    const Json* parent = parent_of(config_, path, place);
    if (!published && (!parent || !parent->contains(path))) return;
    require(parent != nullptr, place_, ": ", whole, ": missing");
    value = get<T>(*parent, path, place);
    if constexpr (std::is_same_v<T, std::int64_t>) check(value, place + ": " + path);
  }

 private:
  // Products of two such sizes stay far from overflow; no model comes near.
  static void check(std::int64_t value, const std::string& place) {
    constexpr std::int64_t largest = 1 << 24;
    require(value >= 1 && value <= largest, place, ": found ", value, ", expected 1 to ", largest);
  }

  const Json& config_;
  std::string place_;
};

class KeyWriter : public Fields<KeyWriter> {
 public:
  using Fields::Fields;
  template <class T>
  void value(const std::string& path, bool published, T& value) {
    (published ? this->published : own)[path] = value;
  }
  std::map<std::string, Json> published, own;
};

}  // namespace mixer_key_table

void read_mixer_keys(MixerConfig& config, const Json& complete, const std::string& place) {
  mixer_key_table::KeyReader reader(config.type(), complete, place);
  config.visit(reader);
}

std::map<std::string, Json> mixer_keys(const MixerConfig& config) {
  mixer_key_table::KeyWriter actual(config.type()), defaults(config.type());
  config.clone()->visit(actual);
  mixer_kind(config.type(), "").make_config()->visit(defaults);
  for (const auto& [path, value] : actual.own) {
    if (value != defaults.own[path]) actual.published[path] = value;
  }
  return actual.published;
}

Json value_at(const Json& config, const std::string& path) {
  std::string key = path, place;
  const Json* parent = mixer_key_table::parent_of(config, key, place);
  return parent && parent->is_object() && parent->contains(key) ? (*parent)[key] : Json();
}

}  // namespace molt
