// Arithmetic, comparison, attributes, items and slices.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "text/chat_template/builtins.h"
#include "text/chat_template/strings.h"

namespace molt::jinja {
namespace operators {

constexpr const char* kSigns[] = {"+", "-", "*", "/", "//", "%", "**", "~"};

[[noreturn]] void fail_types(Operator operation, const Value& left, const Value& right) {
  throw TemplateError(concat("found ", type_name(left), " ", kSigns[static_cast<int>(operation)], " ", type_name(right),
                             ", expected types that go together"));
}

[[noreturn]] void fail_size() {
  throw TemplateError("found a result beyond whole numbers of 64 bits");
}

[[noreturn]] void fail_zero() {
  throw TemplateError("found a division by zero");
}

std::int64_t power(std::int64_t base, std::int64_t exponent) {
  std::int64_t result = 1;
  while (exponent > 0) {
    if (exponent % 2 && __builtin_mul_overflow(result, base, &result)) fail_size();
    exponent /= 2;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) fail_size();
  }
  return result;
}

// Division towards minus infinity.
std::int64_t floor_divide(std::int64_t left, std::int64_t right) {
  if (right == -1) {
    if (__builtin_sub_overflow(std::int64_t{0}, left, &left)) fail_size();
    return left;
  }
  return left / right - (left % right != 0 && (left < 0) != (right < 0));
}

double floor_modulo(double left, double right) {
  const double rest = std::fmod(left, right);
  if (rest == 0) return std::copysign(0.0, right);
  return (rest < 0) != (right < 0) ? rest + right : rest;
}

Value operate_whole(Operator operation, std::int64_t left, std::int64_t right) {
  std::int64_t result = 0;
  switch (operation) {
    case Operator::add:
      if (__builtin_add_overflow(left, right, &result)) fail_size();
      return result;
    case Operator::subtract:
      if (__builtin_sub_overflow(left, right, &result)) fail_size();
      return result;
    case Operator::multiply:
      if (__builtin_mul_overflow(left, right, &result)) fail_size();
      return result;
    case Operator::power:
      if (right < 0 && left == 0) fail_zero();
      if (right < 0) return std::pow(static_cast<double>(left), static_cast<double>(right));
      return power(left, right);
    default:
      break;
  }
  if (right == 0) fail_zero();
  if (operation == Operator::divide) return static_cast<double>(static_cast<long double>(left) / static_cast<long double>(right));
  if (operation == Operator::floor_divide) return floor_divide(left, right);
  return right == -1 ? std::int64_t{0}
                     : left - right * (left / right) + ((left % right != 0 && (left < 0) != (right < 0)) ? right : 0);
}

Value operate_real(Operator operation, double left, double right) {
  switch (operation) {
    case Operator::add:
      return left + right;
    case Operator::subtract:
      return left - right;
    case Operator::multiply:
      return left * right;
    case Operator::power: {
      if (left == 0 && right < 0) fail_zero();
      const double result = std::pow(left, right);
      if (std::isnan(result) && !std::isnan(left) && !std::isnan(right))
        throw TemplateError("found the root of a negative number");
      if (std::isinf(result) && std::isfinite(left) && std::isfinite(right))
        throw TemplateError("found a result beyond real numbers");
      return result;
    }
    default:
      break;
  }
  if (right == 0) fail_zero();
  if (operation == Operator::divide) return left / right;
  const double modulo = floor_modulo(left, right);
  if (operation == Operator::modulo) return modulo;
  const double quotient = (left - modulo) / right, floor = std::floor(quotient);
  return quotient == 0 ? std::copysign(0.0, left / right) : quotient - floor > 0.5 ? floor + 1 : floor;
}

Value repeat(Budget& budget, const Value& value, std::int64_t count) {
  const auto times = static_cast<std::uint64_t>(std::max<std::int64_t>(count, 0));
  const std::string* text = value.string();
  const std::uint64_t size = text ? text->size() : value.sequence()->items.size() * sizeof(Value);
  std::uint64_t total = 0;
  if (__builtin_mul_overflow(size, times, &total)) total = UINT64_MAX;
  budget.spend_bytes(total);
  if (text) {
    std::string out;
    out.reserve(total);
    for (std::uint64_t i = 0; i < times && size; ++i) out += *text;
    return Value(std::move(out));
  }
  Values out;
  const Values& items = value.sequence()->items;
  for (std::uint64_t i = 0; i < times && size; ++i) out.insert(out.end(), items.begin(), items.end());
  return make_sequence(budget, value.sequence()->kind, std::move(out));
}

bool is_repeatable(const Value& value) {
  return value.string() || (value.sequence() && value.sequence()->kind <= Sequence::Kind::tuple);
}

Value operate_other(Budget& budget, Operator operation, const Value& left, const Value& right) {
  std::int64_t count = 0;
  const Sequence *a = left.sequence(), *b = right.sequence();
  if (operation == Operator::add && left.string() && right.string()) {
    budget.spend_bytes(left.string()->size() + right.string()->size());
    return *left.string() + *right.string();
  }
  if (operation == Operator::add && a && b && a->kind == b->kind && a->kind <= Sequence::Kind::tuple) {
    Values items = a->items;
    budget.spend_bytes((items.size() + b->items.size()) * sizeof(Value));
    items.insert(items.end(), b->items.begin(), b->items.end());
    return make_sequence(budget, a->kind, std::move(items));
  }
  if (operation == Operator::multiply && is_repeatable(left) && as_integer(right, count)) return repeat(budget, left, count);
  if (operation == Operator::multiply && is_repeatable(right) && as_integer(left, count)) return repeat(budget, right, count);
  if (operation == Operator::modulo && left.string()) return Value(percent_format(budget, *left.string(), right));
  fail_types(operation, left, right);
}

// Where a slice of `size` items begins and ends and how it steps, as Python's slice.indices().
struct Range {
  std::int64_t start, stop, step;
};

Range slice_range(std::int64_t size, const Value& start, const Value& stop, const Value& step) {
  const auto part = [](const Value& value, const char* what) { return to_integer(value, what); };
  Range range{0, 0, step.is_none() ? 1 : part(step, "step of a slice")};
  if (range.step == 0) throw TemplateError("step of a slice: found 0, expected another number");
  const std::int64_t low = range.step < 0 ? -1 : 0, high = range.step < 0 ? size - 1 : size;
  const auto bound = [&](const Value& value, std::int64_t otherwise) {
    if (value.is_none()) return otherwise;
    std::int64_t index = part(value, "bound of a slice");
    if (index < 0) index = std::max<std::int64_t>(index, -size - 1) + size;
    return std::clamp(index, low, std::max(low, high));
  };
  range.start = bound(start, range.step < 0 ? high : low);
  range.stop = bound(stop, range.step < 0 ? low : high);
  return range;
}

std::int64_t resolve_index(std::int64_t index, std::int64_t size) {
  if (index < 0 && index >= -size) index += size;
  return index >= 0 && index < size ? index : -1;
}

}  // namespace operators

using namespace operators;

Value negate(const Value& value, char sign) {
  require_defined(value);
  std::int64_t whole = 0;
  if (as_integer(value, whole)) return sign == '-' ? operate_whole(Operator::subtract, 0, whole) : Value(whole);
  if (const double* real = value.real()) return sign == '-' ? -*real : *real;
  throw TemplateError(concat("found ", std::string(1, sign), " before ", type_name(value), ", expected a number"));
}

Value operate(Budget& budget, Operator operation, const Value& left, const Value& right) {
  if (operation == Operator::concatenate) {
    std::string text = to_string(budget, left);
    text += to_string(budget, right);
    return Value(std::move(text));
  }
  require_defined(left);
  if (!left.string() || operation != Operator::modulo) require_defined(right);
  std::int64_t a = 0, b = 0;
  if (as_integer(left, a) && as_integer(right, b)) return operate_whole(operation, a, b);
  double x = 0, y = 0;
  if (as_real(left, x) && as_real(right, y)) return operate_real(operation, x, y);
  return operate_other(budget, operation, left, right);
}

bool compare(Budget& budget, Comparison comparison, const Value& left, const Value& right) {
  switch (comparison) {
    case Comparison::equal:
      return equal(budget, left, right);
    case Comparison::unequal:
      return !equal(budget, left, right);
    case Comparison::less:
      return less(budget, left, right);
    case Comparison::greater:
      return less(budget, right, left);
    case Comparison::less_equal:
      return less(budget, left, right) || equal(budget, left, right);
    case Comparison::greater_equal:
      return less(budget, right, left) || equal(budget, left, right);
    case Comparison::in:
      return contains(budget, right, left);
    case Comparison::not_in:
      return !contains(budget, right, left);
  }
  return false;
}

Value item_of(Budget& budget, const Value& value, const Value& key) {
  require_defined(value);
  std::int64_t index = 0;
  const Sequence* sequence = value.sequence();
  if (sequence && sequence->indexable() && as_integer(key, index)) {
    index = resolve_index(index, std::ssize(sequence->items));
    if (index >= 0) return sequence->items[static_cast<std::size_t>(index)];
  } else if (const std::string* text = value.string(); text && as_integer(key, index)) {
    budget.spend_steps(text->size() / 64);
    index = resolve_index(index, count_characters(*text));
    if (index < 0) return Value::undefined("str has no character with this index");
    const std::size_t at = byte_offset(*text, index);
    return make_string(budget, text->substr(at, text::character_length((*text)[at])));
  } else if (value.dict() && !key.dict() && !(key.sequence() && key.sequence()->kind != Sequence::Kind::tuple)) {
    if (const Value* found = find(budget, *value.dict(), key)) return *found;
  }
  if (key.string()) return attribute_of(budget, value, *key.string());
  return Value::undefined(concat(type_name(value), " has no element ", to_repr(budget, key)));
}

Value slice_of(Budget& budget, const Value& value, const Value& start, const Value& stop, const Value& step) {
  require_defined(value);
  const Sequence* sequence = value.sequence();
  const std::string* text = value.string();
  if (!text && !(sequence && sequence->indexable()))
    throw TemplateError(concat("found a slice of ", type_name(value), ", expected text or a list"));
  const std::int64_t size = text ? count_characters(*text) : std::ssize(sequence->items);
  const Range range = slice_range(size, start, stop, step);
  if (text && range.step == 1) {
    const std::size_t begin = byte_offset(*text, range.start);
    const std::size_t bytes = byte_offset(std::string_view(*text).substr(begin), range.stop - range.start);
    budget.spend_steps(text->size() / 64);
    return make_string(budget, text->substr(begin, bytes));
  }
  const Values characters = text ? iterate(budget, value) : Values();
  const Values& items = text ? characters : sequence->items;
  Values chosen;
  for (std::int64_t i = range.start; range.step > 0 ? i < range.stop : i > range.stop;) {
    chosen.push_back(items[static_cast<std::size_t>(i)]);
    if (__builtin_add_overflow(i, range.step, &i)) break;
  }
  if (text) return make_string(budget, join(budget, "", chosen));
  const auto kind = sequence->kind == Sequence::Kind::tuple ? Sequence::Kind::tuple : Sequence::Kind::list;
  return make_sequence(budget, kind, std::move(chosen));
}

}  // namespace molt::jinja
