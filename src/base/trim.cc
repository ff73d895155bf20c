#include "base/trim.h"

namespace molt {
namespace trim {

constexpr std::string_view space = " \t\n\r";

}  // namespace trim

std::string trimmed(std::string_view text) {
  if (is_blank(text)) return "";
  const auto first = text.find_first_not_of(trim::space);
  return std::string(text.substr(first, text.find_last_not_of(trim::space) - first + 1));
}

bool is_blank(std::string_view text) {
  return text.find_first_not_of(trim::space) == std::string_view::npos;
}

}  // namespace molt
