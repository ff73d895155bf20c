#include "report/text.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <string_view>

namespace molt::report {

namespace text_parts {

bool starts_character(char c) {
  return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
}

}  // namespace text_parts

std::string escape_html(const std::string& text) {
  std::string result;
  for (const char c : text) {
    switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      case '\'':
        result += "&#39;";
        break;
      default: {
        const auto code = static_cast<unsigned char>(c);
        if ((code < 0x20 && c != '\n' && c != '\t') || code == 0x7f)
          result += "\xef\xbf\xbd";
        else
          result += c;
      }
    }
  }
  return result;
}

std::string escape_markdown(const std::string& text) {
  std::string result;
  for (const char c : text) {
    if (c == '<') {
      result += "&lt;";
    } else if (c == '&') {
      result += "&amp;";
    } else if (static_cast<unsigned char>(c) < 0x20) {
      result += ' ';
    } else {
      if (std::string_view("\\`*_[]|~").find(c) != std::string_view::npos) result += '\\';
      result += c;
    }
  }
  return result;
}

std::size_t length(const std::string& text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), text_parts::starts_character));
}

std::string shortened(const std::string& text, std::size_t most) {
  if (length(text) <= most) return text;
  std::size_t characters = 0, end = 0;
  while (end < text.size() && (!text_parts::starts_character(text[end]) || ++characters < most)) ++end;
  return text.substr(0, end) + "…";
}

std::string slug(const std::string& text) {
  std::string result;
  for (const char c : text) {
    const bool upper = c >= 'A' && c <= 'Z';
    if (upper || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'))
      result += upper ? static_cast<char>(c - 'A' + 'a') : c;
    else if (!result.empty() && result.back() != '-')
      result += '-';
  }
  while (!result.empty() && result.back() == '-') result.pop_back();
  return result.empty() ? "x" : result.substr(0, 60);
}

std::string fixed(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return std::abs(value) < 1e15 ? text : "-";
}

std::string grouped(double value) {
  if (std::abs(value) < 100) return fixed(value, 1);
  std::string text = fixed(value, 0);
  for (std::size_t at = text.size(); at > 3 + (text[0] == '-');) {
    at -= 3;
    text.insert(at, 1, ',');
  }
  return text;
}

std::string percent(double fraction) {
  return fixed(100 * fraction, 1) + " %";
}

std::string objective_words(const std::string& objective) {
  static const std::map<std::string, std::string> words = {
      {"reverse_kl", "reverse KL"},       {"forward_kl", "forward KL"},   {"jsd", "Jensen-Shannon divergence"},
      {"cross_entropy", "cross-entropy"}, {"matching", "mixer matching"}, {"loss", "mixed loss"}};
  const auto found = words.find(objective);
  return found == words.end() ? objective : found->second;
}

}  // namespace molt::report
