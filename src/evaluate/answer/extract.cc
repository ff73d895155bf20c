#include <algorithm>
#include <array>
#include <string>

#include "base/trim.h"
#include "evaluate/answer/answer.h"

namespace molt {
namespace extraction {

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c | 32);
  return result;
}

// Up to the line's end or that of the sentence, without marks of Markdown.
std::string sentence(std::string_view text) {
  text = text.substr(std::min(text.size(), text.find_first_not_of(" \t*:")));
  text = text.substr(0, text.find('\n'));
  const auto stop = text.find(". ");
  if (stop != std::string_view::npos && stop > 0 && !(text[stop - 1] >= 'A' && text[stop - 1] <= 'Z' && stop == 1))
    text = text.substr(0, stop);
  std::string result = trimmed(text);
  while (!result.empty() && (result.back() == '.' || result.back() == '*')) result.pop_back();
  return trimmed(result);
}

std::string after_phrase(std::string_view text) {
  constexpr std::array<std::string_view, 4> phrases = {"answer is", "answer:", "answer :", "answer**:"};
  const std::string small = lower(text);
  std::size_t found = std::string::npos, behind = 0;
  for (const std::string_view phrase : phrases) {
    const auto at = small.rfind(phrase);
    if (at != std::string::npos && (found == std::string::npos || at > found)) {
      found = at;
      behind = at + phrase.size();
    }
  }
  return found == std::string::npos ? "" : sentence(text.substr(behind));
}

bool is_capital(char c) {
  return c >= 'A' && c <= 'Z';
}
bool is_letter(char c) {
  return (c | 32) >= 'a' && (c | 32) <= 'z';
}

// The letter of "B", "(B)", "B.", "B) …", "\text{(B)}".
std::string leading_choice(std::string_view text) {
  for (const std::string_view wrapper : {"\\text{", "\\textbf{", "\\mathrm{", "$", "**", "\\("}) {
    const std::string inner = trimmed(text);
    if (inner.starts_with(wrapper)) return leading_choice(std::string_view(inner).substr(wrapper.size()));
  }
  const std::string plain = trimmed(text);
  const std::size_t at = plain.starts_with("(") ? 1 : 0;
  if (plain.size() <= at || !is_capital(plain[at])) return "";
  const char next = plain.size() > at + 1 ? plain[at + 1] : ' ';
  const bool alone = plain.size() == at + 1 || next == ')' || next == '.' || next == ':' || next == '}' || next == '*' ||
                     next == '$' || next == ',';
  return alone ? std::string(1, plain[at]) : "";
}

}  // namespace extraction

std::string strip_thinking(std::string_view text, bool opened) {
  constexpr std::string_view open = "<think>", close = "</think>";
  const auto end = text.rfind(close);
  if (end != std::string_view::npos) return std::string(text.substr(end + close.size()));
  return opened || text.find(open) != std::string_view::npos ? "" : std::string(text);
}

std::string boxed_answer(std::string_view text) {
  std::size_t from = std::string_view::npos;
  for (int tries = 0; tries < 32; ++tries) {  // boxes that are not closed
    const std::size_t box = text.rfind("\\boxed", from), frame = text.rfind("\\fbox", from);
    const std::size_t at = box == std::string_view::npos ? frame : frame == std::string_view::npos ? box : std::max(box, frame);
    if (at == std::string_view::npos) return "";
    std::size_t i = at + (at == box ? 6 : 5);
    while (i < text.size() && text[i] == ' ') ++i;
    if (i < text.size() && text[i] >= '0' && text[i] <= '9') return std::string(1, text[i]);
    std::size_t depth = 0;
    for (std::size_t j = i; i < text.size() && text[i] == '{' && j < text.size(); ++j) {
      if (text[j] == '\\') {
        ++j;
        continue;
      }
      if (text[j] == '{') ++depth;
      if (text[j] == '}' && --depth == 0) return trimmed(text.substr(i + 1, j - i - 1));
    }
    if (at == 0) return "";
    from = at - 1;
  }
  return "";
}

std::string extract_answer(std::string_view text) {
  if (std::string boxed = boxed_answer(text); !boxed.empty()) return boxed;
  if (const auto mark = text.rfind("####"); mark != std::string_view::npos) {
    if (std::string found = extraction::sentence(text.substr(mark + 4)); !found.empty()) return found;
  }
  if (std::string found = extraction::after_phrase(text); !found.empty()) return found;
  return last_number(std::string(text));
}

std::string extract_choice(std::string_view text) {
  using namespace extraction;
  // A text that begins with "(A)" may weigh the choices one by one.
  const std::string whole = trimmed(text).starts_with("(") ? "" : trimmed(text);
  for (const std::string& found : {boxed_answer(text), after_phrase(text), whole}) {
    if (std::string letter = leading_choice(found); !letter.empty()) return letter;
  }
  for (std::size_t i = text.size(); i-- > 0;) {
    if (i >= 2 && text[i] == ')' && is_capital(text[i - 1]) && text[i - 2] == '(') return std::string(1, text[i - 1]);
  }
  return "";
}

std::string last_number(const std::string& text) {
  const auto digit = [&](std::size_t i) { return i < text.size() && text[i] >= '0' && text[i] <= '9'; };
  std::size_t end = text.size();
  while (end > 0 && !digit(end - 1)) --end;
  if (end == 0) return "";
  std::size_t begin = end;
  while (begin > 0 && (digit(begin - 1) || ((text[begin - 1] == ',' || text[begin - 1] == '.') && begin > 1 && digit(begin - 2))))
    --begin;
  const bool negative = begin > 0 && text[begin - 1] == '-' && (begin == 1 || !digit(begin - 2));
  std::string number;
  for (std::size_t i = begin; i < end; ++i)
    if (text[i] != ',') number += text[i];
  if (number.find('.') != std::string::npos) {
    number.erase(number.find_last_not_of('0') + 1);
    if (number.back() == '.') number.pop_back();
  }
  while (number.size() > 1 && number[0] == '0' && number[1] != '.') number.erase(0, 1);
  return (negative && number != "0" ? "-" : "") + number;
}

}  // namespace molt
