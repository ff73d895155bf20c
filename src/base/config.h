// Configuration: plain structs whose one visit function names every field with its meaning. Reading YAML, defaults, errors for
// unknown keys, `--set a.b=c`, `molt config` and the resolved copy in a run folder all come from it.
//
//   struct ScheduleConfig {
//     std::string type = "cosine";
//     std::int64_t warmup = 100;
//     void visit(ConfigVisitor& v) {
//       v.choice("type", type, {"constant", "linear", "cosine"}, "Shape of the learning rate after the warm-up");
//       v.field("warmup", warmup, "Steps of linear warm-up");
//     }
//   };
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/files.h"

namespace molt {

class ConfigVisitor;

template <class T>
concept ConfigSection = requires(T value, ConfigVisitor& v) { value.visit(v); };

class ConfigVisitor {
 public:
  virtual ~ConfigVisitor() = default;

  // Scalars and lists of them. The value at the time of the visit is the default.
  virtual void field(const char* name, bool& value, const char* meaning) = 0;
  virtual void field(const char* name, std::int64_t& value, const char* meaning) = 0;
  virtual void field(const char* name, double& value, const char* meaning) = 0;
  virtual void field(const char* name, std::string& value, const char* meaning) = 0;
  virtual void field(const char* name, std::vector<std::int64_t>& value, const char* meaning) = 0;
  virtual void field(const char* name, std::vector<double>& value, const char* meaning) = 0;
  virtual void field(const char* name, std::vector<std::string>& value, const char* meaning) = 0;
  virtual void field(const char* name, std::optional<std::int64_t>& value, const char* meaning) = 0;
  virtual void field(const char* name, std::optional<double>& value, const char* meaning) = 0;
  // One of a fixed set of words; another word is an error that names the nearest.
  virtual void choice(const char* name, std::string& value, const std::vector<std::string>& words, const char* meaning) = 0;

  // A nested section, an optional one (present when its key is; null clears it), a list of sections, a map from names to
  // sections.
  template <ConfigSection T>
  void field(const char* name, T& value, const char* meaning) {
    section(name, meaning, [&](ConfigVisitor& v) { value.visit(v); });
  }
  template <ConfigSection T>
  void field(const char* name, std::optional<T>& value, const char* meaning) {
    optional_section(
        name, meaning, value.has_value(),
        [&](ConfigVisitor& v) {
          if (!value) value.emplace();
          value->visit(v);
        },
        [&] { value.reset(); });
  }
  template <ConfigSection T>
  void field(const char* name, std::vector<T>& value, const char* meaning) {
    list(
        name, meaning, value.size(),
        [&](std::size_t index, ConfigVisitor& v) {
          if (index >= value.size()) value.resize(index + 1);
          value[index].visit(v);
        },
        [&] { value.clear(); });
  }
  template <ConfigSection T>
  void field(const char* name, std::map<std::string, T>& value, const char* meaning) {
    std::vector<std::string> keys;
    for (auto& [key, unused] : value) keys.push_back(key);
    map(name, meaning, keys, [&](const std::string& key, ConfigVisitor& v) { value[key].visit(v); }, [&] { value.clear(); });
  }

  // The building blocks of the templates above; `visit` may be called with an element that does not exist yet (to describe it).
  using Visit = std::function<void(ConfigVisitor&)>;
  virtual void section(const char* name, const char* meaning, const Visit& visit) = 0;
  virtual void optional_section(const char* name, const char* meaning, bool present, const Visit& visit,
                                const std::function<void()>& clear) = 0;
  virtual void list(const char* name, const char* meaning, std::size_t size,
                    const std::function<void(std::size_t, ConfigVisitor&)>& visit, const std::function<void()>& clear) = 0;
  virtual void map(const char* name, const char* meaning, const std::vector<std::string>& keys,
                   const std::function<void(const std::string&, ConfigVisitor&)>& visit, const std::function<void()>& clear) = 0;

  // "recipe.yaml: stages[2].optimizer" while reading (for checks a visit makes itself), "" otherwise.
  virtual std::string place() const { return ""; }
  virtual bool reading() const { return false; }
};

// "a.b=c" or "list[2].b=c", the value being YAML; `option` is the command's that stands for it ("--steps"), or empty: --set
// itself.
struct Override {
  std::string assignment, option;
};

// What counts instead of what a file says, a later one instead of an earlier.
struct Overrides {
  std::vector<Override> all;

  Overrides() = default;
  Overrides(const std::vector<std::string>& set) { add(set); }  // implicit: what --set was given
  void add(const std::vector<std::string>& set) {
    for (const std::string& assignment : set) all.push_back({assignment, ""});
  }
  void add(const std::string& option, const std::string& assignment) { all.push_back({assignment, option}); }
};

// Reads a YAML file with what it includes (config_include.h), or text named by `place`. UserError names file and line or the
// option, the key, what was found and expected, and for an unknown key the nearest known one.
void read_config(const fs::path& path, const Overrides& overrides, const ConfigVisitor::Visit& visit);
void parse_config(const std::string& text, const std::string& place, const Overrides& overrides,
                  const ConfigVisitor::Visit& visit);
template <ConfigSection T>
T load_config(const fs::path& path, const Overrides& overrides = {}) {
  T config;
  read_config(path, overrides, [&](ConfigVisitor& v) { config.visit(v); });
  return config;
}

// The config as YAML, every field written out (the resolved copy of a run).
std::string to_yaml(const ConfigVisitor::Visit& visit);
template <ConfigSection T>
std::string to_yaml(T config) {
  return to_yaml(ConfigVisitor::Visit([&](ConfigVisitor& v) { config.visit(v); }));
}

// The schema for people: every field with its type, default and meaning, as commented YAML that reads back as the defaults.
// Fields that a visit names only for another word of a choice follow under that word, commented out; so does one element of what
// is empty. The visit must be one of a value made for this: its choices and lists are tried out.
std::string describe_config(const ConfigVisitor::Visit& visit);

// The word of `words` nearest to `word` by edit distance, or "" when none is near.
std::string nearest(const std::string& word, const std::vector<std::string>& words);

}  // namespace molt
