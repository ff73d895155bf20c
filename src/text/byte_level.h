// The byte-level alphabet of GPT-2: every byte is written as one visible character.
#pragma once
#include <string>
#include <string_view>

namespace molt::text {

// Bytes that print in Latin-1 ('!' to '~', U+00A1 to U+00AC, U+00AE to U+00FF) stand for themselves; the others, in order, are
// U+0100, U+0101, … (Radford et al. 2019, encoder.py). A space is "Ġ".
void append_byte_level(std::string_view bytes, std::string& out);

// The bytes that `token` spells; false, and nothing appended, if it has a character outside the alphabet.
bool append_bytes_of(std::string_view token, std::string& out);

}  // namespace molt::text
