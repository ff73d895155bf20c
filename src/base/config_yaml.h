// Values as YAML text, for config_write.cc and config_describe.cc.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace molt::config_yaml {

std::string yaml(bool value);
std::string yaml(std::int64_t value);
std::string yaml(double value);              // the shortest text that reads back as the same number
std::string yaml(const std::string& value);  // quoted where it could be taken for something else
template <class T>
std::string yaml(const std::optional<T>& value) {
  return value ? yaml(*value) : "null";
}

// "name: [a, b]", continued on further lines when it does not fit into `width` columns. The texts are YAML already.
std::string list_text(const std::string& name, const std::vector<std::string>& texts, std::size_t width);
template <class T>
std::string list_of(const std::string& name, const std::vector<T>& values, std::size_t width) {
  std::vector<std::string> texts;
  for (const T& value : values) texts.push_back(yaml(value));
  return list_text(name, texts, width);
}

// `text` with `first` before its first line and `rest` before the others; empty lines stay without trailing blanks.
std::string indented(const std::string& text, const std::string& first, const std::string& rest);

}  // namespace molt::config_yaml
