#include "base/config_yaml.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdio>

namespace molt::config_yaml {

namespace yaml_detail {

// Words that YAML readers take for something other than text.
bool is_reserved(std::string word) {
  std::transform(word.begin(), word.end(), word.begin(), [](unsigned char c) { return std::tolower(c); });
  const auto words = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"};
  return std::find(words.begin(), words.end(), word) != words.end();
}

bool may_stand_plain(const std::string& text) {
  const auto is_letter = [](unsigned char c) { return std::isalpha(c) || c == '_' || c == '/'; };
  const auto is_plain = [&](unsigned char c) { return is_letter(c) || std::isdigit(c) || c == '.' || c == '-' || c == '+'; };
  return !text.empty() && is_letter(text[0]) && std::all_of(text.begin(), text.end(), is_plain) && !is_reserved(text);
}

}  // namespace yaml_detail

std::string yaml(bool value) {
  return value ? "true" : "false";
}

std::string yaml(std::int64_t value) {
  return std::to_string(value);
}

std::string yaml(double value) {
  if (std::isinf(value)) return value < 0 ? "-.inf" : ".inf";
  char buffer[32];
  const std::string text(buffer, std::to_chars(buffer, buffer + sizeof buffer, value).ptr);
  return text.find_first_not_of("-0123456789") == std::string::npos ? text + ".0" : text;
}

std::string yaml(const std::string& value) {
  if (yaml_detail::may_stand_plain(value)) return value;
  std::string text = "\"";
  for (const char c : value) {
    const auto code = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      text += {'\\', c};
    } else if (c == '\n') {
      text += "\\n";
    } else if (c == '\t') {
      text += "\\t";
    } else if (code < 0x20 || code == 0x7f) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\x%02x", code);
      text += escape;
    } else {
      text += c;
    }
  }
  return text + "\"";
}

std::string list_text(const std::string& name, const std::vector<std::string>& texts, std::size_t width) {
  std::string out;
  std::string line = name + ": [";
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const std::string piece = texts[i] + (i + 1 < texts.size() ? "," : "");
    const bool starts = i == 0;
    if (!starts && line.size() + 1 + piece.size() + 1 > width) {
      out += line + "\n";
      line = "  " + piece;
    } else {
      line += (starts ? "" : " ") + piece;
    }
  }
  return out + line + "]\n";
}

std::string indented(const std::string& text, const std::string& first, const std::string& rest) {
  std::string out;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = text.find('\n', begin);
    std::string line = (begin == 0 ? first : rest) + text.substr(begin, end - begin);
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
    begin = end == std::string::npos ? text.size() : end + 1;
  }
  return out;
}

}  // namespace molt::config_yaml
