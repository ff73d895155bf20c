// Spaces, tabs and line ends around a text.
#pragma once
#include <string>
#include <string_view>

namespace molt {

// Without those at its beginning and its end.
std::string trimmed(std::string_view text);
// Whether there is nothing else.
bool is_blank(std::string_view text);

}  // namespace molt
