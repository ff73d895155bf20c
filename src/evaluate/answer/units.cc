#include "evaluate/answer/units.h"

#include <algorithm>
#include <map>

namespace molt::answer {
namespace units {

const std::map<std::string, std::string> kNames = {
    {"centimeter", "cm"}, {"centimetre", "cm"}, {"meter", "m"},   {"metre", "m"},       {"kilometer", "km"},
    {"kilometre", "km"},  {"millimeter", "mm"}, {"inch", "in"},   {"inche", "in"},      {"foot", "ft"},
    {"feet", "ft"},       {"yard", "yd"},       {"mile", "mi"},   {"second", "s"},      {"sec", "s"},
    {"minute", "min"},    {"min", "min"},       {"hour", "h"},    {"hr", "h"},          {"gram", "g"},
    {"kilogram", "kg"},   {"pound", "lb"},      {"lb", "lb"},     {"ounce", "oz"},      {"liter", "l"},
    {"litre", "l"},       {"milliliter", "ml"}, {"percent", "%"}, {"degree", "degree"}, {"dollar", "dollar"},
    {"cent", "cent"},     {"usd", "dollar"},    {"unit", ""},     {"cm", "cm"},         {"mm", "mm"},
    {"km", "km"},         {"kg", "kg"},         {"mg", "mg"},     {"ft", "ft"},         {"in", "in"},
    {"mph", "mph"},       {"ml", "ml"},         {"oz", "oz"},     {"yd", "yd"},         {"mi", "mi"},
    {"square unit", ""},  {"cubic unit", ""},   {"radian", ""},   {"day", "day"},       {"week", "week"},
    {"month", "month"},   {"year", "year"}};

std::string name_of(std::string word) {
  std::transform(word.begin(), word.end(), word.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 32) : c; });
  word.erase(std::remove_if(word.begin(), word.end(), [](char c) { return c == '.' || c == '\\' || c == '{' || c == '}'; }),
             word.end());
  word.erase(0, word.find_first_not_of(' '));
  word.erase(word.find_last_not_of(' ') + 1);
  std::string power;
  for (const auto& [prefix, exponent] : {std::pair{"square ", "^2"}, std::pair{"sq ", "^2"}, std::pair{"cubic ", "^3"}}) {
    if (word.starts_with(prefix)) {
      word.erase(0, std::string(prefix).size());
      power = exponent;
    }
  }
  const auto known = [&](const std::string& key) { return kNames.count(key) > 0; };
  if (!known(word) && word.size() > 2 && word.back() == 's') word.pop_back();
  if (known(word)) word = kNames.at(word);
  return word.empty() ? "" : word + power;
}

bool is_known(const Token& token) {
  return kNames.count(name_of(token.text)) > 0 || std::any_of(kNames.begin(), kNames.end(), [&](const auto& entry) {
           return entry.second == name_of(token.text) && !entry.second.empty();
         });
}

}  // namespace units

std::pair<std::span<const Token>, std::string> take_unit(std::span<const Token> tokens) {
  using Kind = Token::Kind;
  if (tokens.size() > 1 && tokens.front().is("$")) return {tokens.subspan(1), "dollar"};
  if (tokens.size() > 1 && tokens.back().is("%")) return {tokens.first(tokens.size() - 1), "%"};
  if (tokens.size() > 1 && tokens.back().is("$")) return {tokens.first(tokens.size() - 1), "dollar"};
  // 90^\circ, 90^{\circ}, 90°
  std::size_t end = tokens.size();
  while (end > 0 && (tokens[end - 1].is("}") || tokens[end - 1].is("deg"))) --end;
  const auto tail = tokens.subspan(end);
  if (end > 0 && std::any_of(tail.begin(), tail.end(), [](const Token& token) { return token.is("deg"); })) {
    const std::size_t braces =
        static_cast<std::size_t>(std::count_if(tail.begin(), tail.end(), [](const Token& token) { return token.is("}"); }));
    std::size_t opened = 0;
    while (end > 0 && opened < braces && tokens[end - 1].is("{")) --end, ++opened;
    if (end > 0 && tokens[end - 1].is("^")) --end;
    if (opened == braces && end > 0) return {tokens.first(end), "degree"};
  }
  // 15\text{ cm}^2, 5 apples, 20 square inches
  end = tokens.size();
  std::string power;
  const bool braced = end > 4 && tokens[end - 1].is("}") && tokens[end - 3].is("{") && tokens[end - 4].is("^");
  const std::size_t mark = braced ? end - 4 : end > 2 && tokens[end - 2].is("^") ? end - 2 : end;
  if (mark < end && mark > 1 && tokens[mark - 1].kind == Kind::word) {
    power = "^" + tokens[braced ? end - 2 : end - 1].text;
    end = mark;
  }
  std::size_t begin = end;
  const auto is_unit = [&](const Token& token) {
    if (token.kind != Kind::word) return false;
    return token.quoted || units::is_known(token) || token.spaced;
  };
  while (begin > 1 && is_unit(tokens[begin - 1])) --begin;
  if (begin == end) return {tokens, ""};
  std::string words;
  for (const Token& token : tokens.subspan(begin, end - begin)) words += (words.empty() ? "" : " ") + token.text;
  const std::string name = units::name_of(words);
  return {tokens.first(begin), name.empty() ? "" : name + power};
}

}  // namespace molt::answer
