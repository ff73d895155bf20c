// UTF-8 and the character classes that tokenizers ask about.
#pragma once
#include <cstddef>
#include <string>
#include <string_view>

namespace molt::text {

// The code point at `position` of valid UTF-8; moves `position` past it.
char32_t next_code_point(std::string_view text, std::size_t& position);
// Where the last character of non-empty valid UTF-8 begins.
std::size_t last_character(std::string_view text);
// Bytes of the character that starts with this byte in valid UTF-8.
std::size_t character_length(char first);
void append_code_point(char32_t code_point, std::string& out);

bool is_valid_utf8(std::string_view bytes);

// Bytes to valid UTF-8, in pieces: every longest broken beginning of a character becomes one U+FFFD (Unicode 15, section 3.9, as
// in the WHATWG encoding standard). A character cut between two pieces waits for its rest.
class Utf8Repair {
 public:
  void push(std::string_view bytes, std::string& out);
  // What was waiting becomes U+FFFD; afterwards as new.
  void finish(std::string& out);

 private:
  std::string waiting_;
  int missing_ = 0;                               // continuation bytes still to come
  unsigned char lowest_ = 0x80, highest_ = 0xBF;  // what the next one may be
};

bool is_whitespace(char32_t code_point);   // White_Space
bool is_numeric(char32_t code_point);      // general categories Nd, Nl, No
bool is_punctuation(char32_t code_point);  // ASCII punctuation and symbols, general categories P*
bool is_mark(char32_t code_point);         // general categories M*
bool is_word(char32_t code_point);         // Alphabetic, marks, decimal digits, connector punctuation, joiners

}  // namespace molt::text
