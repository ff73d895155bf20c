#include "text/byte_level.h"

#include <array>
#include <cstdint>

#include "text/unicode.h"

namespace molt::text {
namespace byte_level {

constexpr std::size_t alphabet_end = 0x144;  // 256 + the 68 bytes that do not print

struct Alphabet {
  std::array<std::string, 256> character;       // of a byte, in UTF-8
  std::array<std::int16_t, alphabet_end> byte;  // of a code point, -1 where there is none

  Alphabet() {
    byte.fill(-1);
    char32_t next = 256;
    for (int value = 0; value < 256; ++value) {
      const bool prints = (value >= '!' && value <= '~') || (value >= 0xA1 && value != 0xAD);
      const char32_t code_point = prints ? static_cast<char32_t>(value) : next++;
      append_code_point(code_point, character[value]);
      byte[code_point] = static_cast<std::int16_t>(value);
    }
  }
};

const Alphabet& alphabet() {
  static const Alphabet made;
  return made;
}

}  // namespace byte_level

void append_byte_level(std::string_view bytes, std::string& out) {
  const auto& alphabet = byte_level::alphabet();
  for (const char byte : bytes) out += alphabet.character[static_cast<unsigned char>(byte)];
}

bool append_bytes_of(std::string_view token, std::string& out) {
  const auto& alphabet = byte_level::alphabet();
  const std::size_t before = out.size();
  for (std::size_t position = 0; position < token.size();) {
    const char32_t c = next_code_point(token, position);
    if (c >= byte_level::alphabet_end || alphabet.byte[c] < 0) {
      out.resize(before);
      return false;
    }
    out += static_cast<char>(alphabet.byte[c]);
  }
  return true;
}

}  // namespace molt::text
