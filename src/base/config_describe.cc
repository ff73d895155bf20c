#include <algorithm>
#include <set>

#include "base/config.h"
#include "base/config_yaml.h"
#include "base/error.h"

namespace molt {

namespace config_describe {

using config_yaml::indented;
using config_yaml::yaml;

constexpr std::size_t width = 100;
constexpr int deepest = 8;  // a section may hold lists of its own kind

std::string commented(const std::string& text) {
  return indented(text, "# ", "# ");
}

// Comment lines of at most `columns` columns.
std::string comment(const std::string& words, std::size_t columns) {
  std::string out;
  std::string line = "#";
  for (std::size_t begin = 0; begin < words.size();) {
    const std::size_t end = std::min(words.find(' ', begin), words.size());
    if (line.size() > 1 && line.size() + 1 + (end - begin) > columns) {
      out += line + "\n";
      line = "#";
    }
    line += " " + words.substr(begin, end - begin);
    begin = end + 1;
  }
  return out + line + "\n";
}

const char* type_name(bool) {
  return "true or false";
}
const char* type_name(std::int64_t) {
  return "whole number";
}
const char* type_name(double) {
  return "number";
}
const char* type_name(const std::string&) {
  return "text";
}
const char* type_name(const std::vector<std::int64_t>&) {
  return "list of whole numbers";
}
const char* type_name(const std::vector<double>&) {
  return "list of numbers";
}
const char* type_name(const std::vector<std::string>&) {
  return "list of texts";
}
const char* type_name(const std::optional<std::int64_t>&) {
  return "whole number or null";
}
const char* type_name(const std::optional<double>&) {
  return "number or null";
}

struct Choice {
  std::string name, chosen;
  std::vector<std::string> words;
};

class Describer final : public ConfigVisitor {
 public:
  Describer(std::size_t columns, int depth) : columns_(columns), depth_(depth) {}

  // All of a section: its fields, then those that appear under other words of its choices.
  static std::string section_text(const Visit& visit, std::size_t columns, int depth) {
    if (depth > deepest) return "";
    Describer describer(columns, depth);
    visit(describer);
    std::string text = describer.text_;
    for (const Choice& choice : describer.choices_) {
      for (const std::string& word : choice.words) {
        if (word == choice.chosen) continue;
        Describer other(columns - 2, depth);
        other.named_ = describer.named_;
        other.forced_ = {choice.name, word, {}};
        visit(other);
        if (other.text_.empty()) continue;
        text += "\n" + comment("With " + choice.name + ": " + word, columns) + commented(other.text_);
      }
      Describer back(columns, depth);
      back.named_ = describer.named_;
      back.forced_ = choice;
      visit(back);
    }
    return text;
  }

  void field(const char* name, bool& value, const char* meaning) override { line(name, value, meaning); }
  void field(const char* name, std::int64_t& value, const char* meaning) override { line(name, value, meaning); }
  void field(const char* name, double& value, const char* meaning) override { line(name, value, meaning); }
  void field(const char* name, std::string& value, const char* meaning) override { line(name, value, meaning); }
  void field(const char* name, std::vector<std::int64_t>& value, const char* meaning) override {
    list_line(name, value, meaning);
  }
  void field(const char* name, std::vector<double>& value, const char* meaning) override { list_line(name, value, meaning); }
  void field(const char* name, std::vector<std::string>& value, const char* meaning) override { list_line(name, value, meaning); }
  void field(const char* name, std::optional<std::int64_t>& value, const char* meaning) override { line(name, value, meaning); }
  void field(const char* name, std::optional<double>& value, const char* meaning) override { line(name, value, meaning); }

  void choice(const char* name, std::string& value, const std::vector<std::string>& words, const char* meaning) override {
    if (name == forced_.name) value = forced_.chosen;
    if (!begin(name, meaning, "one of " + join(words), false)) return;
    text_ += std::string(name) + ": " + yaml(value) + "\n";
    choices_.push_back({name, value, words});
  }

  void section(const char* name, const char* meaning, const Visit& visit) override {
    if (!begin(name, meaning, "section", true)) return;
    const std::string inner = section_text(visit, columns_ - 2, depth_ + 1);
    text_ += std::string(name) + (inner.empty() ? ": {}\n" : ":\n" + indented(inner, "  ", "  "));
  }

  void optional_section(const char* name, const char* meaning, bool present, const Visit& visit,
                        const std::function<void()>& clear) override {
    if (present) return section(name, meaning, visit);
    if (!begin(name, meaning, "section or null", true)) return;
    text_ += std::string(name) + ": null\n" + example("", visit);
    clear();
  }

  void list(const char* name, const char* meaning, std::size_t size,
            const std::function<void(std::size_t, ConfigVisitor&)>& visit, const std::function<void()>& clear) override {
    if (!begin(name, meaning, "list of sections", true)) return;
    const auto element = [&](std::size_t index) { return [&visit, index](ConfigVisitor& v) { visit(index, v); }; };
    if (size == 0) {
      text_ +=
          std::string(name) + ": []\n" + commented(indented(section_text(element(0), columns_ - 6, depth_ + 1), "  - ", "    "));
      clear();
      return;
    }
    text_ += std::string(name) + ":\n";
    for (std::size_t i = 0; i < size; ++i) {
      const std::string inner = section_text(element(i), columns_ - 4, depth_ + 1);
      text_ += inner.empty() ? "  - {}\n" : indented(inner, "  - ", "    ");
    }
  }

  void map(const char* name, const char* meaning, const std::vector<std::string>& keys,
           const std::function<void(const std::string&, ConfigVisitor&)>& visit, const std::function<void()>& clear) override {
    if (!begin(name, meaning, "sections by name", true)) return;
    if (keys.empty()) {
      text_ += std::string(name) + ": {}\n" + example("NAME", [&](ConfigVisitor& v) { visit("NAME", v); });
      return clear();
    }
    text_ += std::string(name) + ":\n";
    for (const std::string& key : keys) {
      const std::string inner = section_text([&](ConfigVisitor& v) { visit(key, v); }, columns_ - 4, depth_ + 2);
      text_ += "  " + yaml(key) + (inner.empty() ? ": {}\n" : ":\n" + indented(inner, "    ", "    "));
    }
  }

 private:
  static std::string join(const std::vector<std::string>& words) {
    std::string text;
    for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
    return text;
  }

  // Writes the comment above a field, `apart` from its neighbours by empty lines; false when the field is described already.
  bool begin(const char* name, const std::string& meaning, const std::string& type, bool apart) {
    if (!named_.insert(name).second) return false;
    if ((apart || after_section_) && !text_.empty()) text_ += "\n";
    after_section_ = apart;
    text_ += comment(meaning + " (" + type + ")", columns_);
    return true;
  }

  template <class T>
  void line(const char* name, const T& value, const char* meaning) {
    if (begin(name, meaning, type_name(value), false)) text_ += std::string(name) + ": " + yaml(value) + "\n";
  }

  template <class T>
  void list_line(const char* name, const std::vector<T>& values, const char* meaning) {
    if (begin(name, meaning, type_name(values), false)) text_ += config_yaml::list_of(name, values, columns_);
  }

  // What a section that is not there would hold, commented out, under `key` when it has one.
  std::string example(const std::string& key, const Visit& visit) const {
    const std::size_t indent = key.empty() ? 2 : 4;
    const std::string inner = section_text(visit, columns_ - indent - 2, depth_ + 1);
    const std::string section = indented(inner, std::string(indent, ' '), std::string(indent, ' '));
    return commented((key.empty() ? "" : "  " + key + ":\n") + section);
  }

  std::size_t columns_;
  int depth_;
  bool after_section_ = false;
  std::string text_;
  std::set<std::string> named_;
  std::vector<Choice> choices_;
  Choice forced_;
};

}  // namespace config_describe

std::string describe_config(const ConfigVisitor::Visit& visit) {
  return config_describe::Describer::section_text(visit, config_describe::width, 0);
}

}  // namespace molt
