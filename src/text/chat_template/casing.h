// Upper, lower and title case of single characters as Unicode has them in full: "ß" becomes "SS" (Unicode 15, SpecialCasing.txt).
#pragma once
#include <cstddef>
#include <string>
#include <string_view>

namespace molt::jinja {

bool is_cased(char32_t code_point);
void append_upper(char32_t code_point, std::string& out);
void append_title(char32_t code_point, std::string& out);
// The character at `at`, which moves past it. It looks at the text around: a capital sigma that ends a word becomes "ς".
void append_lower(std::string_view text, std::size_t& at, std::string& out);

}  // namespace molt::jinja
