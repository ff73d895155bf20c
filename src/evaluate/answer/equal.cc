#include <algorithm>

#include "evaluate/answer/answer.h"
#include "evaluate/answer/structure.h"

namespace molt {
namespace answer {
namespace comparing {

using Kind = Structure::Kind;

constexpr std::size_t kLongest = 4000;   // bytes of an answer that is read as mathematics
constexpr std::size_t kMostParts = 200;  // of a list that is compared in any order

bool same(const Structure& a, const Structure& b);

bool all_digits(const std::string& text) {
  const std::size_t first = text.starts_with("-") ? 1 : 0;
  return text.size() > first && text.find_first_not_of("0123456789", first) == std::string::npos;
}

// An integer without zeros in front.
std::string canonical(std::string text) {
  const bool negative = text.starts_with("-");
  text.erase(0, text.find_first_not_of("-0"));
  return text.empty() ? "0" : (negative ? "-" : "") + text;
}

bool percentage_of(const Structure& percent, const Structure& other) {
  const auto hundred = std::make_shared<Expression>(Expression{Expression::Op::number, 100});
  const Expression share{Expression::Op::divide, 0, {}, {percent.expression, hundred}};
  return equal(share, percent.sign, *other.expression, other.sign);
}

bool same_value(const Structure& a, const Structure& b) {
  if (!a.unit.empty() && !b.unit.empty() && a.unit != b.unit) return false;
  if (all_digits(a.text) && all_digits(b.text) && a.unit == b.unit) return canonical(a.text) == canonical(b.text);
  if (equal(*a.expression, a.sign, *b.expression, b.sign)) return true;
  if (a.unit == b.unit) return false;
  return (a.unit == "%" && percentage_of(a, b)) || (b.unit == "%" && percentage_of(b, a));
}

bool in_order(const Structure& a, const Structure& b) {
  return a.parts.size() == b.parts.size() && std::equal(a.parts.begin(), a.parts.end(), b.parts.begin(), same);
}

std::vector<const Structure*> members(const Structure& of, bool as_set) {
  std::vector<const Structure*> found;
  for (const Structure& part : of.parts) {
    const bool there = as_set && std::any_of(found.begin(), found.end(), [&](const Structure* one) { return same(*one, part); });
    if (!there) found.push_back(&part);
  }
  return found;
}

bool in_any_order(const Structure& a, const Structure& b, bool as_set) {
  if (a.parts.size() > kMostParts || b.parts.size() > kMostParts) return in_order(a, b);
  std::vector<const Structure*> left = members(a, as_set), right = members(b, as_set);
  if (left.size() != right.size()) return false;
  for (const Structure* part : left) {
    const auto match = std::find_if(right.begin(), right.end(), [&](const Structure* other) { return same(*part, *other); });
    if (match == right.end()) return false;
    right.erase(match);
  }
  return true;
}

bool is_collection(const Structure& structure) {
  return structure.kind == Kind::list || structure.kind == Kind::set;
}

bool same(const Structure& a, const Structure& b) {
  if (!a.name.empty() && !b.name.empty() && a.name != b.name)
    return a.difference && b.difference && proportional(*a.difference, *b.difference);
  if (a.kind == Kind::equation || b.kind == Kind::equation)
    return a.difference && b.difference && proportional(*a.difference, *b.difference);
  if (is_collection(a) && is_collection(b)) return in_any_order(a, b, a.kind == Kind::set || b.kind == Kind::set);
  if (a.kind == Kind::text && b.kind == Kind::value) return a.expression && same_value(a, b);
  if (a.kind == Kind::value && b.kind == Kind::text) return b.expression && same_value(a, b);
  if (a.kind != b.kind) return false;
  switch (a.kind) {
    case Kind::value:
      return same_value(a, b);
    case Kind::union_of:
      return in_any_order(a, b, true);
    case Kind::bracketed:
      return a.open == b.open && a.close == b.close && in_order(a, b);
    case Kind::matrix:
      return a.rows == b.rows && in_order(a, b);
    default:
      return !a.text.empty() && a.text == b.text;
  }
}

std::string without_spaces(std::string_view text) {
  std::string result;
  for (const char c : text)
    if (c != ' ' && c != '\n' && c != '\t' && c != '\r') result += c;
  return result;
}

bool equal_as(const Tokens& a, const Tokens& b) {
  if (a.list.empty() || b.list.empty()) return false;
  return same(read_structure(a.list), read_structure(b.list));
}

}  // namespace comparing
}  // namespace answer

bool answers_equal(std::string_view a, std::string_view b) {
  using namespace answer::comparing;
  const std::string plain_a = without_spaces(a), plain_b = without_spaces(b);
  if (plain_a.empty() || plain_b.empty()) return false;
  if (plain_a == plain_b) return true;
  if (a.size() > kLongest || b.size() > kLongest) return false;
  const auto first = answer::tokenize(a, true), second = answer::tokenize(b, true);
  if (!first || !second) return false;
  if (equal_as(*first, *second)) return true;
  // "1,200" may be two numbers where the other answer has no thousands.
  if (first->grouped == second->grouped) return false;
  const auto list_a = answer::tokenize(a, false), list_b = answer::tokenize(b, false);
  return list_a && list_b && equal_as(*list_a, *list_b);
}

}  // namespace molt
