// Text as Python's str has it: indices count characters, white space and case are Unicode's. All text is valid UTF-8.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/unicode.h"

namespace molt::jinja {

std::int64_t count_characters(std::string_view text);
// Byte offset of the character with this index; the size of the text beyond its end.
std::size_t byte_offset(std::string_view text, std::int64_t character);
// Where `needle` begins, at or after `from`, or npos. Linear in time, whatever the two are.
std::size_t find_bytes(std::string_view text, std::string_view needle, std::size_t from = 0);
std::size_t rfind_bytes(std::string_view text, std::string_view needle);

bool is_space(char32_t code_point);      // str.isspace()
bool is_printable(char32_t code_point);  // str.isprintable()

enum class Side { both, left, right };
// Without the white space, or the characters of `chars`, at its ends.
std::string_view strip(std::string_view text, Side side = Side::both);
std::string_view strip(std::string_view text, std::string_view chars, Side side);

std::string upper(std::string_view text);
std::string lower(std::string_view text);
std::string capitalize(std::string_view text);  // the first character in title case, the rest in lower case
std::string title(std::string_view text);       // str.title(): every run of letters

// splitlines(): without their ends.
std::vector<std::string_view> split_lines(std::string_view text);

// Whether the text is not empty and every character has the property: isdigit, isalpha, isalnum, isspace, isupper, islower.
bool all_characters(std::string_view text, std::string_view property);

}  // namespace molt::jinja
