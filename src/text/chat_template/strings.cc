#include "text/chat_template/strings.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstring>

#include "text/chat_template/casing.h"

namespace molt::jinja {
namespace strings_detail {

utf8proc_category_t general_category(char32_t code_point) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(code_point));
}

bool is_letter(char32_t code_point) {
  const auto kind = general_category(code_point);
  return kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_LO;
}

bool is_digit(char32_t code_point) {
  if (general_category(code_point) == UTF8PROC_CATEGORY_ND) return true;
  // Superscripts, subscripts and circled digits: Numeric_Type=Digit outside of Nd, as far as text has them.
  return code_point == 0xB2 || code_point == 0xB3 || code_point == 0xB9 || code_point == 0x2070 ||
         (code_point >= 0x2074 && code_point <= 0x2079) || (code_point >= 0x2080 && code_point <= 0x2089) ||
         (code_point >= 0x2460 && code_point <= 0x2468);
}

// What `chars` has anywhere in it.
bool has(std::string_view chars, std::string_view character) {
  return find_bytes(chars, character) != std::string::npos;
}

template <class Strips>
std::string_view strip_if(std::string_view text, Side side, Strips strips) {
  while (side != Side::right && !text.empty()) {
    const std::size_t size = text::character_length(text[0]);
    if (!strips(text.substr(0, size))) break;
    text.remove_prefix(size);
  }
  while (side != Side::left && !text.empty()) {
    const std::size_t at = text::last_character(text);
    if (!strips(text.substr(at))) break;
    text = text.substr(0, at);
  }
  return text;
}

char32_t only_character(std::string_view character) {
  std::size_t at = 0;
  return text::next_code_point(character, at);
}

}  // namespace strings_detail

using namespace strings_detail;

std::int64_t count_characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; });
}

std::size_t byte_offset(std::string_view text, std::int64_t character) {
  std::size_t at = 0;
  for (; character > 0 && at < text.size(); --character) at += text::character_length(text[at]);
  return at;
}

std::size_t find_bytes(std::string_view text, std::string_view needle, std::size_t from) {
  if (from > text.size()) return std::string::npos;
  if (needle.size() < 2) return needle.empty() ? from : text.find(needle[0], from);
  const void* found = memmem(text.data() + from, text.size() - from, needle.data(), needle.size());
  return found ? static_cast<std::size_t>(static_cast<const char*>(found) - text.data()) : std::string::npos;
}

std::size_t rfind_bytes(std::string_view text, std::string_view needle) {
  const std::string backwards(text.rbegin(), text.rend()), needle_backwards(needle.rbegin(), needle.rend());
  const std::size_t found = find_bytes(backwards, needle_backwards);
  return found == std::string::npos ? found : text.size() - found - needle.size();
}

bool is_space(char32_t code_point) {
  return text::is_whitespace(code_point) || (code_point >= 0x1C && code_point <= 0x1F);
}

bool is_printable(char32_t code_point) {
  if (code_point == ' ') return true;
  const auto kind = general_category(code_point);
  return kind != UTF8PROC_CATEGORY_CN && !(kind >= UTF8PROC_CATEGORY_ZS && kind <= UTF8PROC_CATEGORY_CO);
}

std::string_view strip(std::string_view text, Side side) {
  return strip_if(text, side, [](std::string_view character) { return is_space(only_character(character)); });
}

std::string_view strip(std::string_view text, std::string_view chars, Side side) {
  return strip_if(text, side, [&](std::string_view character) { return has(chars, character); });
}

std::string upper(std::string_view text) {
  std::string out;
  for (std::size_t at = 0; at < text.size();) append_upper(text::next_code_point(text, at), out);
  return out;
}

std::string lower(std::string_view text) {
  std::string out;
  for (std::size_t at = 0; at < text.size();) append_lower(text, at, out);
  return out;
}

std::string capitalize(std::string_view text) {
  std::string out;
  std::size_t at = 0;
  if (!text.empty()) append_title(text::next_code_point(text, at), out);
  while (at < text.size()) append_lower(text, at, out);
  return out;
}

std::string title(std::string_view text) {
  std::string out;
  bool inside = false;
  for (std::size_t at = 0; at < text.size();) {
    std::size_t next = at;
    const char32_t code_point = text::next_code_point(text, next);
    if (inside) {
      append_lower(text, at, out);
    } else {
      append_title(code_point, out);
      at = next;
    }
    inside = is_cased(code_point);
  }
  return out;
}

std::vector<std::string_view> split_lines(std::string_view text) {
  std::vector<std::string_view> lines;
  std::size_t begin = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = at;
    const char32_t c = text::next_code_point(text, at);
    const bool ends = (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
    if (!ends) continue;
    lines.push_back(text.substr(begin, end - begin));
    if (c == '\r' && at < text.size() && text[at] == '\n') ++at;
    begin = at;
  }
  if (begin < text.size()) lines.push_back(text.substr(begin));
  return lines;
}

bool all_characters(std::string_view text, std::string_view property) {
  bool found = false;
  for (std::size_t at = 0; at < text.size();) {
    const char32_t c = text::next_code_point(text, at);
    if (property == "isupper" || property == "islower") {
      const bool is_upper = general_category(c) == UTF8PROC_CATEGORY_LU, is_lower = is_cased(c) && !is_upper;
      if (general_category(c) == UTF8PROC_CATEGORY_LT || (property == "isupper" ? is_lower : is_upper)) return false;
      found = found || is_upper || is_lower;
      continue;
    }
    const bool has_it = property == "isdigit"   ? is_digit(c)
                        : property == "isalpha" ? is_letter(c)
                        : property == "isalnum" ? is_letter(c) || text::is_numeric(c)
                                                : is_space(c);
    if (!has_it) return false;
    found = true;
  }
  return found;
}

}  // namespace molt::jinja
