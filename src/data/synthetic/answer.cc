// Finding and comparing final answers.
#include <algorithm>
#include <cctype>

#include "data/synthetic/problems.h"

namespace molt {
namespace answer_parts {

bool digit_at(std::string_view text, std::size_t at) {
  return at < text.size() && std::isdigit(static_cast<unsigned char>(text[at]));
}

bool space_at(std::string_view text, std::size_t at) {
  return at < text.size() && std::isspace(static_cast<unsigned char>(text[at]));
}

std::size_t skip_spaces(std::string_view text, std::size_t at) {
  while (space_at(text, at)) ++at;
  return at;
}

// The digits that begin at `at`, which moves behind them: "45", "1,234", or single digits apart, "4 5". Empty when there are
// none.
std::string take_digits(std::string_view text, std::size_t& at) {
  std::string digits;
  const auto run = [&] {
    while (digit_at(text, at)) digits += text[at++];
  };
  run();
  if (digits.size() == 1) {
    while (space_at(text, at) && digit_at(text, at + 1) && !digit_at(text, at + 2)) {
      digits += text[at + 1];
      at += 2;
    }
  }
  while (!digits.empty() && at < text.size() && text[at] == ',' && digit_at(text, at + 1) && digit_at(text, at + 2) &&
         digit_at(text, at + 3) && !digit_at(text, at + 4)) {
    ++at;
    run();
  }
  digits.erase(0, std::min(digits.find_first_not_of('0'), digits.size() - 1));
  return digits;
}

// ".5" of "45.50"; nothing for the full stop of a sentence or a fraction of zeros.
std::string take_fraction(std::string_view text, std::size_t& at) {
  if (at >= text.size() || text[at] != '.' || !digit_at(text, at + 1)) return "";
  std::string fraction(1, text[at++]);
  while (digit_at(text, at)) fraction += text[at++];
  fraction.erase(fraction.find_last_not_of('0') + 1);
  return fraction == "." ? "" : fraction;
}

std::optional<std::string> number_at(std::string_view text, std::size_t at) {
  at = skip_spaces(text, at);
  const bool negative = at < text.size() && text[at] == '-';
  if (negative) at = skip_spaces(text, at + 1);
  if (at < text.size() && text[at] == '$') at = skip_spaces(text, at + 1);
  std::string number = take_digits(text, at);
  if (number.empty()) return std::nullopt;
  number += take_fraction(text, at);
  return negative && number != "0" ? "-" + number : number;
}

}  // namespace answer_parts

std::optional<std::string> final_answer(std::string_view text) {
  using namespace answer_parts;
  constexpr std::string_view word = "nswer", hashes = "####";  // after a or A
  for (std::size_t at = 0; at < text.size(); ++at) {
    const std::string_view rest = text.substr(at);
    std::size_t behind = 0;
    if (rest.starts_with(hashes)) {
      behind = at + hashes.size();
    } else if ((rest[0] == 'a' || rest[0] == 'A') && rest.substr(1).starts_with(word)) {
      const std::size_t colon = skip_spaces(text, at + 1 + word.size());
      if (colon < text.size() && text[colon] == ':') behind = colon + 1;
    }
    if (behind == 0) continue;
    if (auto number = number_at(text, behind)) return number;
  }
  return std::nullopt;
}

bool check_answer(std::string_view text, std::string_view expected) {
  const auto found = final_answer(text);
  return found && found == answer_parts::number_at(expected, 0);
}

bool check_answer(std::string_view text, const Problem& problem) {
  return check_answer(text, problem.answer);
}

}  // namespace molt
