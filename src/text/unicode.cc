#include "text/unicode.h"

#include <utf8proc.h>

#include <cstdint>
#include <cstring>

namespace molt::text {
namespace unicode {

constexpr std::string_view replacement = "\xEF\xBF\xBD";

// What a first byte promises (Unicode 15, table 3-7): the number of continuation bytes and the range of the first of them.
struct Lead {
  int continuations;  // -1: no character begins with this byte
  unsigned char lowest, highest;
};

Lead lead_of(unsigned char byte) {
  if (byte < 0x80) return {0, 0, 0};
  if (byte < 0xC2 || byte > 0xF4) return {-1, 0, 0};
  if (byte < 0xE0) return {1, 0x80, 0xBF};
  if (byte < 0xF0)
    return {2, static_cast<unsigned char>(byte == 0xE0 ? 0xA0 : 0x80), static_cast<unsigned char>(byte == 0xED ? 0x9F : 0xBF)};
  return {3, static_cast<unsigned char>(byte == 0xF0 ? 0x90 : 0x80), static_cast<unsigned char>(byte == 0xF4 ? 0x8F : 0xBF)};
}

// Where the first byte above 127 is, at or after `position`.
std::size_t skip_ascii(std::string_view bytes, std::size_t position) {
  for (; position + 8 <= bytes.size(); position += 8) {
    std::uint64_t eight;
    std::memcpy(&eight, bytes.data() + position, 8);
    if (eight & 0x8080808080808080u) break;
  }
  while (position < bytes.size() && static_cast<unsigned char>(bytes[position]) < 0x80) ++position;
  return position;
}

utf8proc_category_t category(char32_t code_point) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(code_point));
}

}  // namespace unicode

std::size_t character_length(char first) {
  const auto byte = static_cast<unsigned char>(first);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

char32_t next_code_point(std::string_view text, std::size_t& position) {
  const std::size_t length = character_length(text[position]);
  auto value = static_cast<char32_t>(static_cast<unsigned char>(text[position]));
  if (length > 1) value &= 0x7Fu >> length;
  for (std::size_t i = 1; i < length; ++i) value = value << 6 | (static_cast<unsigned char>(text[position + i]) & 0x3Fu);
  position += length;
  return value;
}

std::size_t last_character(std::string_view text) {
  std::size_t position = text.size() - 1;
  while (position > 0 && (static_cast<unsigned char>(text[position]) & 0xC0) == 0x80) --position;
  return position;
}

void append_code_point(char32_t code_point, std::string& out) {
  utf8proc_uint8_t bytes[4];
  const auto length = utf8proc_encode_char(static_cast<utf8proc_int32_t>(code_point), bytes);
  out.append(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(length));
}

bool is_valid_utf8(std::string_view bytes) {
  std::size_t position = 0;
  while ((position = unicode::skip_ascii(bytes, position)) < bytes.size()) {
    auto lead = unicode::lead_of(static_cast<unsigned char>(bytes[position++]));
    if (lead.continuations < 0) return false;
    for (; lead.continuations > 0; --lead.continuations, ++position) {
      if (position == bytes.size()) return false;
      const auto byte = static_cast<unsigned char>(bytes[position]);
      if (byte < lead.lowest || byte > lead.highest) return false;
      lead.lowest = 0x80, lead.highest = 0xBF;
    }
  }
  return true;
}

void Utf8Repair::push(std::string_view bytes, std::string& out) {
  for (std::size_t position = 0; position < bytes.size();) {
    const auto byte = static_cast<unsigned char>(bytes[position]);
    if (missing_ == 0) {
      const std::size_t ascii_end = unicode::skip_ascii(bytes, position);
      out.append(bytes, position, ascii_end - position);
      if ((position = ascii_end) == bytes.size()) break;
      const auto lead = unicode::lead_of(static_cast<unsigned char>(bytes[position]));
      if (lead.continuations < 0) {
        out += unicode::replacement;
      } else {
        waiting_.assign(1, bytes[position]);
        missing_ = lead.continuations, lowest_ = lead.lowest, highest_ = lead.highest;
      }
      ++position;
    } else if (byte >= lowest_ && byte <= highest_) {
      waiting_ += bytes[position++];
      lowest_ = 0x80, highest_ = 0xBF;
      if (--missing_ == 0) out += waiting_;
    } else {
      out += unicode::replacement;  // and this byte is looked at again, as a first one
      missing_ = 0;
    }
  }
}

void Utf8Repair::finish(std::string& out) {
  if (missing_ > 0) out += unicode::replacement;
  *this = {};
}

bool is_whitespace(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= '\t' && c <= '\r');
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

bool is_numeric(char32_t c) {
  if (c < 0x80) return c >= '0' && c <= '9';
  const auto category = unicode::category(c);
  return category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO;
}

bool is_punctuation(char32_t c) {
  if (c < 0x80) return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
  const auto category = unicode::category(c);
  return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}

bool is_mark(char32_t c) {
  if (c < 0x300) return false;
  const auto category = unicode::category(c);
  return category >= UTF8PROC_CATEGORY_MN && category <= UTF8PROC_CATEGORY_ME;
}

bool is_word(char32_t c) {
  const auto category = unicode::category(c);
  if (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_NL) return true;  // L*, M*, Nd, Nl
  // The letters among the symbols are in circles and squares.
  return category == UTF8PROC_CATEGORY_PC || c == 0x200C || c == 0x200D || (c >= 0x24B6 && c <= 0x24E9) ||
         (c >= 0x1F130 && c <= 0x1F149) || (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189);
}

}  // namespace molt::text
