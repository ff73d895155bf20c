// Tests: what stands behind `is`.
#include "base/error.h"
#include "text/chat_template/builtins.h"
#include "text/chat_template/strings.h"

namespace molt::jinja {
namespace tests_detail {

using Check = bool (*)(Budget&, const Value&);
using CheckWith = bool (*)(Budget&, const Value&, const Value&);

bool has_remainder(Budget& budget, const Value& value, std::int64_t divisor, std::int64_t remainder) {
  return equal(budget, operate(budget, Operator::modulo, value, divisor), remainder);
}

bool is_case(Budget& budget, const Value& value, std::string_view property) {
  return all_characters(to_string(budget, value), property);
}

bool same(Budget& budget, const Value& left, const Value& right) {
  if (left.data().index() != right.data().index()) return false;
  if (left.dict()) return left.dict() == right.dict();
  if (left.sequence()) return left.sequence() == right.sequence();
  return equal(budget, left, right);
}

constexpr std::pair<std::string_view, Check> kChecks[] = {
    {"defined", [](Budget&, const Value& v) { return !v.is_undefined(); }},
    {"undefined", [](Budget&, const Value& v) { return v.is_undefined(); }},
    {"none", [](Budget&, const Value& v) { return v.is_none(); }},
    {"string", [](Budget&, const Value& v) { return v.string() != nullptr; }},
    {"mapping", [](Budget&, const Value& v) { return v.dict() != nullptr; }},
    {"boolean", [](Budget&, const Value& v) { return v.boolean() != nullptr; }},
    {"integer", [](Budget&, const Value& v) { return v.integer() != nullptr; }},
    {"float", [](Budget&, const Value& v) { return v.real() != nullptr; }},
    {"number", [](Budget&, const Value& v) { return is_number(v); }},
    {"true", [](Budget&, const Value& v) { return v.boolean() && *v.boolean(); }},
    {"false", [](Budget&, const Value& v) { return v.boolean() && !*v.boolean(); }},
    {"sequence",
     [](Budget&, const Value& v) {
       return v.is_undefined() || v.string() || v.dict() || (v.sequence() && v.sequence()->indexable());
     }},
    {"iterable", [](Budget&, const Value& v) { return iterable(v) || v.loop(); }},
    {"callable", [](Budget&, const Value& v) { return v.callable() != nullptr; }},
    {"odd", [](Budget& b, const Value& v) { return has_remainder(b, v, 2, 1); }},
    {"even", [](Budget& b, const Value& v) { return has_remainder(b, v, 2, 0); }},
    {"lower", [](Budget& b, const Value& v) { return is_case(b, v, "islower"); }},
    {"upper", [](Budget& b, const Value& v) { return is_case(b, v, "isupper"); }},
    {"escaped", [](Budget&, const Value&) { return false; }},
    {"filter", [](Budget&, const Value& v) { return v.string() && is_filter(*v.string()); }}};

bool is_equal(Budget& b, const Value& v, const Value& w) {
  return equal(b, v, w);
}
bool is_unequal(Budget& b, const Value& v, const Value& w) {
  return !equal(b, v, w);
}
bool is_less(Budget& b, const Value& v, const Value& w) {
  return compare(b, Comparison::less, v, w);
}
bool is_at_most(Budget& b, const Value& v, const Value& w) {
  return compare(b, Comparison::less_equal, v, w);
}
bool is_greater(Budget& b, const Value& v, const Value& w) {
  return compare(b, Comparison::greater, v, w);
}
bool is_at_least(Budget& b, const Value& v, const Value& w) {
  return compare(b, Comparison::greater_equal, v, w);
}

constexpr std::pair<std::string_view, CheckWith> kChecksWith[] = {
    {"eq", is_equal},
    {"equalto", is_equal},
    {"==", is_equal},
    {"ne", is_unequal},
    {"!=", is_unequal},
    {"lt", is_less},
    {"lessthan", is_less},
    {"<", is_less},
    {"le", is_at_most},
    {"<=", is_at_most},
    {"gt", is_greater},
    {"greaterthan", is_greater},
    {">", is_greater},
    {"ge", is_at_least},
    {">=", is_at_least},
    {"in", [](Budget& b, const Value& v, const Value& w) { return contains(b, w, v); }},
    {"sameas", same},
    {"divisibleby",
     [](Budget& b, const Value& v, const Value& w) { return equal(b, operate(b, Operator::modulo, v, w), std::int64_t{0}); }}};

}  // namespace tests_detail

using namespace tests_detail;

bool apply_test(Evaluator& evaluator, const std::string& name, const Value& value, const Arguments& arguments) {
  for (const auto& [known, check] : kChecks) {
    if (name != known) continue;
    bind_arguments(name, arguments, {});
    return check(evaluator.budget(), value);
  }
  for (const auto& [known, check] : kChecksWith) {
    if (name == known) return check(evaluator.budget(), value, *bind_arguments(name, arguments, {"other"}, 1)[0]);
  }
  throw TemplateError(concat("found the test ", name, ", which is not supported"));
}

}  // namespace molt::jinja
