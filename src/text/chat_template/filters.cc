// Filters of text, numbers and single values, and the table of all. Those of lists are in list_filters.cc.
#include <charconv>
#include <cmath>
#include <optional>

#include "base/error.h"
#include "text/chat_template/builtins.h"
#include "text/chat_template/list_filters.h"
#include "text/chat_template/strings.h"

namespace molt::jinja {
namespace filters {

// int() of text: with sign and white space around, underscores between digits; nothing where it is no number.
std::optional<std::int64_t> parse_whole(std::string_view text, int base) {
  text = strip(text);
  const bool negative = text.starts_with('-');
  if (negative || text.starts_with('+')) text.remove_prefix(1);
  const auto prefix = text.size() > 2 && text[0] == '0' ? text[1] | 0x20 : ' ';
  if ((base == 16 && prefix == 'x') || (base == 8 && prefix == 'o') || (base == 2 && prefix == 'b')) text.remove_prefix(2);
  std::string digits;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool between = i > 0 && i + 1 < text.size() && text[i - 1] != '_';
    if (text[i] == '_' && !between) return std::nullopt;
    if (text[i] != '_') digits += text[i];
  }
  std::int64_t value = 0;
  if (digits.empty() || digits[0] == '-') return std::nullopt;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
  if (end != digits.data() + digits.size()) return std::nullopt;
  if (error != std::errc()) throw TemplateError("int: found a number of more than 64 bits");
  return negative ? -value : value;
}

std::optional<double> parse_real(std::string_view text) {
  text = strip(text);
  const bool has_sign = text.starts_with('-') || text.starts_with('+');
  const bool negative = text.starts_with('-');
  if (has_sign) text.remove_prefix(1);
  if (text.empty() || text[0] == '-') return std::nullopt;
  std::string digits;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto is_digit = [&](std::size_t at) { return at < text.size() && text[at] >= '0' && text[at] <= '9'; };
    if (text[i] == '_' && !(i > 0 && is_digit(i - 1) && is_digit(i + 1))) return std::nullopt;
    if (text[i] != '_') digits += text[i];
  }
  double value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (end != digits.data() + digits.size() || digits.find('(') != digits.npos) return std::nullopt;
  if (error == std::errc::result_out_of_range) value = std::strtod(digits.c_str(), nullptr);
  return negative ? -value : value;
}

std::int64_t truncate(double value) {
  if (!(std::abs(value) < 9223372036854775808.0)) throw TemplateError("int: found a number of more than 64 bits");
  return static_cast<std::int64_t>(value);
}

Value to_int(Evaluator&, const Value& value, const Arguments& arguments) {
  const auto given = bind_arguments("int", arguments, {"default", "base"});
  const Value otherwise = given[0] ? *given[0] : Value(std::int64_t{0});
  std::int64_t whole = 0;
  require_defined(value);
  if (as_integer(value, whole)) return whole;
  if (const double* real = value.real()) return std::isfinite(*real) ? Value(truncate(*real)) : otherwise;
  const std::string* text = value.string();
  if (!text) return otherwise;
  const std::int64_t base = given[1] ? to_integer(*given[1], "base of int") : 10;
  if (base < 2 || base > 36) throw TemplateError(concat("base of int: found ", base, ", expected 2 to 36"));
  if (const auto parsed = parse_whole(*text, static_cast<int>(base))) return *parsed;
  const auto real = parse_real(*text);
  return real && std::isfinite(*real) ? Value(truncate(*real)) : otherwise;
}

Value to_float(Evaluator&, const Value& value, const Arguments& arguments) {
  const auto given = bind_arguments("float", arguments, {"default"});
  double real = 0;
  require_defined(value);
  if (as_real(value, real)) return real;
  const auto parsed = value.string() ? parse_real(*value.string()) : std::nullopt;
  return parsed ? Value(*parsed) : given[0] ? *given[0] : Value(0.0);
}

// Half of the last place goes to the even neighbour, by the exact value of the number.
double round_to(double value, int places) {
  if (!std::isfinite(value)) return value;
  if (places < 0) {
    const double scale = std::pow(10.0, -places);
    return std::isinf(scale) ? std::copysign(0.0, value) : std::nearbyint(value / scale) * scale;
  }
  if (places > 330) return value;
  char text[700];
  std::snprintf(text, sizeof text, "%.*f", places, value);
  return std::strtod(text, nullptr);
}

Value round(Evaluator& evaluator, const Value& value, const Arguments& arguments) {
  const auto given = bind_arguments("round", arguments, {"precision", "method"});
  const std::int64_t places = given[0] ? to_integer(*given[0], "precision of round") : 0;
  const std::string method = given[1] ? to_text(*given[1], "method of round") : "common";
  if (!is_one_of(method, {"common", "ceil", "floor"}))
    throw TemplateError(concat("method of round: found ", method, ", expected common, ceil or floor"));
  if (std::abs(places) > 400) throw TemplateError(concat("precision of round: found ", places, ", expected -400 to 400"));
  require_defined(value);
  double real = 0;
  if (!as_real(value, real)) throw TemplateError(concat("round: found ", type_name(value), ", expected a number"));
  std::int64_t whole = 0;
  if (method == "common") {
    if (!as_integer(value, whole)) return round_to(real, static_cast<int>(places));
    if (places >= 0) return whole;
    return truncate(round_to(real, static_cast<int>(places)));
  }
  const Value power = operate(evaluator.budget(), Operator::power, std::int64_t{10}, places);
  double scaled = 0, scale = 0;
  as_real(operate(evaluator.budget(), Operator::multiply, value, power), scaled);
  as_real(power, scale);
  return (method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale;
}

Value absolute(Evaluator&, const Value& value, const Arguments& arguments) {
  bind_arguments("abs", arguments, {});
  std::int64_t whole = 0;
  if (as_integer(value, whole)) return whole < 0 ? negate(whole, '-') : Value(whole);
  if (!value.real()) require_defined(value);
  if (!value.real()) throw TemplateError(concat("abs: found ", type_name(value), ", expected a number"));
  return std::abs(*value.real());
}

Value fallback(Evaluator&, const Value& value, const Arguments& arguments) {
  const auto given = bind_arguments("default", arguments, {"default_value", "boolean"});
  const bool wanted = value.is_undefined() || (given[1] && truth(*given[1]) && !truth(value));
  return !wanted ? value : given[0] ? *given[0] : Value("");
}

// A style as json.dumps takes it.
JsonStyle json_style(const std::vector<const Value*>& given) {
  JsonStyle style;
  style.ascii = given[0] && truth(*given[0]);
  style.sorted = given[3] && truth(*given[3]);
  if (given[1] && !given[1]->is_none()) {
    style.indented = true;
    style.item_separator = ",";
    const std::string* text = given[1]->string();
    const std::int64_t width = text ? 0 : to_integer(*given[1], "indent of tojson");
    if (width > 1000) throw TemplateError(concat("indent of tojson: found ", width, ", expected 1000 at most"));
    style.indent = text ? *text : std::string(static_cast<std::size_t>(std::max<std::int64_t>(width, 0)), ' ');
  }
  if (given[2] && !given[2]->is_none()) {
    const Sequence* both = given[2]->sequence();
    if (!both || both->items.size() != 2) throw TemplateError("separators of tojson: expected two texts");
    style.item_separator = to_text(both->items[0], "separators of tojson");
    style.key_separator = to_text(both->items[1], "separators of tojson");
  }
  return style;
}

Value tojson(Evaluator& evaluator, const Value& value, const Arguments& arguments) {
  const auto given = bind_arguments("tojson", arguments, {"ensure_ascii", "indent", "separators", "sort_keys"});
  return Value(to_json(evaluator.budget(), value, json_style(given)));
}

// Words begin behind white space, "-" and opening brackets, other than for str.title().
Value title_words(Evaluator& evaluator, const Value& value, const Arguments& arguments) {
  bind_arguments("title", arguments, {});
  const std::string text = to_string(evaluator.budget(), value);
  std::string out;
  std::size_t word = 0;
  const auto end_word = [&](std::size_t end) {
    const std::string_view all = std::string_view(text).substr(word, end - word);
    if (all.empty()) return;
    const std::size_t first = text::character_length(all[0]);
    out += upper(all.substr(0, first)) + lower(all.substr(first));
  };
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t begin = at;
    const char32_t c = text::next_code_point(text, at);
    if (!is_space(c) && std::u32string_view(U"-({[<").find(c) == std::u32string_view::npos) continue;
    end_word(begin);
    out += std::string_view(text).substr(begin, at - begin);
    word = at;
  }
  end_word(text.size());
  return make_string(evaluator.budget(), std::move(out));
}

Value indent(Evaluator& evaluator, const Value& value, const Arguments& arguments) {
  const auto given = bind_arguments("indent", arguments, {"width", "first", "blank"});
  const std::string text = to_text(value, "indent") + "\n";
  const Value spaces = Value(" ");
  const Value width = given[0] ? *given[0] : Value(std::int64_t{4});
  const std::string indention =
      width.string() ? *width.string() : *operate(evaluator.budget(), Operator::multiply, spaces, width).string();
  const bool first = given[1] && truth(*given[1]), blank = given[2] && truth(*given[2]);
  std::string out;
  bool is_first = true;
  for (const std::string_view line : split_lines(text)) {
    evaluator.budget().spend_bytes(indention.size() + line.size() + 1);
    if (!is_first) out += "\n";
    if (is_first ? first : blank || !line.empty()) out += indention;
    out += line;
    is_first = false;
  }
  return Value(std::move(out));
}

// A method of text as a filter, for what prints as text.
Value by_method(Evaluator& evaluator, const std::string& name, const Value& value, const Arguments& arguments) {
  return call_text_method(evaluator.budget(), to_string(evaluator.budget(), value), name, arguments);
}

Value replace(Evaluator& evaluator, const Value& value, const Arguments& arguments) {
  Budget& budget = evaluator.budget();
  const auto given = bind_arguments("replace", arguments, {"old", "new", "count"}, 2);
  const std::int64_t most = given[2] && !given[2]->is_none() ? to_integer(*given[2], "count of replace") : -1;
  return Value(replace_all(budget, to_string(budget, value), to_string(budget, *given[0]), to_string(budget, *given[1]), most));
}

Value format(Evaluator& evaluator, const Value& value, const Arguments& arguments) {
  Budget& budget = evaluator.budget();
  if (!arguments.named.empty()) throw TemplateError("format: found named arguments, expected none");
  const Value values = make_sequence(budget, Sequence::Kind::tuple, arguments.positional);
  return Value(percent_format(budget, to_string(budget, value), values));
}

Value text(Evaluator& evaluator, const Value& value, const Arguments& arguments) {
  bind_arguments("string", arguments, {});
  return Value(to_string(evaluator.budget(), value));
}

Value attribute(Evaluator& evaluator, const Value& value, const Arguments& arguments) {
  const std::string& name = to_text(*bind_arguments("attr", arguments, {"name"}, 1)[0], "name of attr");
  return value.dict() && !is_one_of(name, {"get", "items", "keys", "values"})
             ? Value::undefined(concat("dict has no attribute ", name))
             : attribute_of(evaluator.budget(), value, name);
}

Value text_case(Evaluator& evaluator, const std::string& name, const Value& value, const Arguments& arguments) {
  bind_arguments(name, arguments, {});
  return by_method(evaluator, name, value, arguments);
}

constexpr std::pair<std::string_view, FilterFunction> kTable[] = {
    {"abs", absolute},
    {"attr", attribute},
    {"d", fallback},
    {"default", fallback},
    {"float", to_float},
    {"format", format},
    {"indent", indent},
    {"int", to_int},
    {"round", round},
    {"replace", replace},
    {"safe", text},
    {"string", text},
    {"title", title_words},
    {"tojson", tojson},
    {"capitalize", [](Evaluator& e, const Value& v, const Arguments& a) { return text_case(e, "capitalize", v, a); }},
    {"lower", [](Evaluator& e, const Value& v, const Arguments& a) { return text_case(e, "lower", v, a); }},
    {"trim", [](Evaluator& e, const Value& v, const Arguments& a) { return by_method(e, "strip", v, a); }},
    {"upper", [](Evaluator& e, const Value& v, const Arguments& a) { return text_case(e, "upper", v, a); }}};

FilterFunction find_filter(std::string_view name) {
  for (const auto& [known, function] : kTable) {
    if (known == name) return function;
  }
  return find_list_filter(name);
}

}  // namespace filters

bool is_filter(std::string_view name) {
  return filters::find_filter(name) != nullptr;
}

Value apply_filter(Evaluator& evaluator, const std::string& name, const Value& value, const Arguments& arguments) {
  const FilterFunction function = filters::find_filter(name);
  if (!function) throw TemplateError(concat("found the filter ", name, ", which is not supported"));
  return function(evaluator, value, arguments);
}

}  // namespace molt::jinja
