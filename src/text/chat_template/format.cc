// Formatting: "%s %5.2f" % values and "{} {name:>8}".format(values).
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "text/chat_template/builtins.h"
#include "text/chat_template/strings.h"

namespace molt::jinja {
namespace format_detail {

constexpr std::int64_t kWidest = 10000;

// How one value is to print.
struct Spec {
  std::string fill = " ";
  char align = 0;  // '<', '>', '^', '='; 0: numbers to the right, text to the left
  char sign = '-';
  bool alternate = false;
  char grouping = 0;  // ',' or '_'
  std::int64_t width = 0, precision = -1;
  char type = 0;
};

[[noreturn]] void fail_format(std::string_view what) {
  throw TemplateError(concat("format: found ", what, ", which is not supported"));
}

std::int64_t read_number(std::string_view text, std::size_t& at) {
  std::int64_t number = 0;
  for (; at < text.size() && text[at] >= '0' && text[at] <= '9'; ++at) {
    number = number * 10 + (text[at] - '0');
    if (number > kWidest) throw TemplateError(concat("format: found a number beyond ", kWidest));
  }
  return number;
}

std::string pad(const std::string& text, const Spec& spec, bool is_number) {
  const std::int64_t missing = spec.width - count_characters(text);
  if (missing <= 0) return text;
  const char align = spec.align ? spec.align : is_number ? '>' : '<';
  const std::int64_t left = align == '<' ? 0 : align == '^' ? missing / 2 : missing;
  std::string before, after;
  for (std::int64_t i = 0; i < missing; ++i) (i < left ? before : after) += spec.fill;
  const std::size_t sign = align == '=' && !text.empty() && std::string_view("+- ").find(text[0]) != std::string_view::npos;
  return text.substr(0, sign) + before + text.substr(sign) + after;
}

std::string with_sign(std::string digits, bool negative, const Spec& spec) {
  if (negative) return "-" + digits;
  return spec.sign == '-' ? digits : spec.sign + digits;
}

std::string group(const std::string& digits, char separator) {
  const std::size_t end = std::min(digits.find_first_not_of("0123456789"), digits.size());
  std::string out;
  for (std::size_t i = 0; i < end; ++i) {
    if (i && (end - i) % 3 == 0) out += separator;
    out += digits[i];
  }
  return out + digits.substr(end);
}

std::string whole_digits(std::uint64_t value, const Spec& spec) {
  const unsigned base = spec.type == 'x' || spec.type == 'X' ? 16 : spec.type == 'o' ? 8 : spec.type == 'b' ? 2 : 10;
  std::string digits;
  do digits += "0123456789abcdef"[value % base];
  while (value /= base);
  std::reverse(digits.begin(), digits.end());
  if (spec.type == 'X') digits = upper(digits);
  if (spec.alternate && base != 10) digits = std::string("0") + spec.type + digits;
  return spec.grouping && base == 10 ? group(digits, spec.grouping) : digits;
}

std::string real_digits(double value, const Spec& spec) {
  const bool is_upper = spec.type == 'F' || spec.type == 'E' || spec.type == 'G';
  if (!std::isfinite(value)) return std::isnan(value) ? (is_upper ? "NAN" : "nan") : is_upper ? "INF" : "inf";
  const int precision = static_cast<int>(spec.precision < 0 ? 6 : spec.precision);
  const char type = spec.type == '%' ? 'f' : spec.type;
  const std::string format = concat("%", spec.alternate ? "#" : "", ".*", type);
  const double scaled = spec.type == '%' ? value * 100 : value;
  std::string digits(static_cast<std::size_t>(std::snprintf(nullptr, 0, format.c_str(), precision, scaled)) + 1, '\0');
  std::snprintf(digits.data(), digits.size(), format.c_str(), precision, scaled);
  digits.pop_back();
  if (spec.type == '%') digits += '%';
  return spec.grouping ? group(digits, spec.grouping) : digits;
}

bool is_real_type(char type) {
  return type && std::string_view("eEfFgG%").find(type) != std::string_view::npos;
}

std::string format_number(const Value& value, const Spec& spec) {
  std::int64_t whole = 0;
  double real = 0;
  if (as_integer(value, whole) && !is_real_type(spec.type)) {
    const auto size = whole < 0 ? 0 - static_cast<std::uint64_t>(whole) : static_cast<std::uint64_t>(whole);
    return pad(with_sign(whole_digits(size, spec), whole < 0, spec), spec, true);
  }
  as_real(value, real);
  const std::string digits = spec.type ? real_digits(std::abs(real), spec) : real_to_string(std::abs(real));
  return pad(with_sign(spec.type || !spec.grouping ? digits : group(digits, spec.grouping), std::signbit(real), spec), spec,
             true);
}

std::string format_text(const std::string& text, const Spec& spec) {
  return pad(spec.precision < 0 ? text : text.substr(0, byte_offset(text, spec.precision)), spec, false);
}

// Values of "%" in order, or by name.
class PercentFormatter {
 public:
  PercentFormatter(Budget& budget, const std::string& format, const Value& values)
      : budget_(budget), format_(format), values_(values) {
    const Sequence* sequence = values.sequence();
    is_tuple_ = sequence && sequence->kind == Sequence::Kind::tuple;
  }

  std::string run() {
    std::string out;
    while (at_ < format_.size()) {
      const char c = format_[at_++];
      out += c == '%' ? field() : std::string(1, c);
      budget_.spend_bytes(1);
    }
    const bool may_be_left = values_.dict() || (values_.sequence() && !is_tuple_);  // as Python has it
    const std::size_t given = is_tuple_ ? values_.sequence()->items.size() : may_be_left ? taken_ : 1;
    if (taken_ < given) throw TemplateError("format: found more values than fields");
    return out;
  }

 private:
  std::string field() {
    Spec spec;
    const Value* named = name();
    for (; at_ < format_.size() && std::string_view("#0- +").find(format_[at_]) != std::string_view::npos; ++at_) {
      const char flag = format_[at_];
      if (flag == '-') spec.align = '<';
      if (flag == '#') spec.alternate = true;
      if (flag == '0' && spec.align != '<') spec.fill = "0", spec.align = '=';
      if (flag == '+' || (flag == ' ' && spec.sign != '+')) spec.sign = flag;
    }
    if (spec.align == '<') spec.fill = " ";
    spec.width = read_number(format_, at_);
    if (at_ < format_.size() && format_[at_] == '.') spec.precision = read_number(format_, ++at_);
    while (at_ < format_.size() && std::string_view("hlL").find(format_[at_]) != std::string_view::npos) ++at_;
    if (at_ >= format_.size()) throw TemplateError("format: found % at the end");
    spec.type = format_[at_++];
    budget_.spend_bytes(static_cast<std::uint64_t>(spec.width + std::max<std::int64_t>(spec.precision, 0)));
    if (spec.type == '%') return "%";
    return convert(named ? *named : next(), spec);
  }

  const Value* name() {
    if (at_ >= format_.size() || format_[at_] != '(') return nullptr;
    const std::size_t end = format_.find(')', at_);
    if (end == std::string::npos || !values_.dict())
      throw TemplateError("format: found %(, expected a name, ) and a dict of values");
    const Value* found = values_.dict()->find(std::string_view(format_).substr(at_ + 1, end - at_ - 1));
    if (!found) throw TemplateError("format: found a name that the values do not have");
    at_ = end + 1;
    return found;
  }

  const Value& next() {
    const std::size_t index = taken_++;
    if (!is_tuple_ && index == 0) return values_;
    if (!is_tuple_ || index >= values_.sequence()->items.size()) throw TemplateError("format: found more fields than values");
    return values_.sequence()->items[index];
  }

  std::string convert(const Value& value, Spec spec) {
    if (spec.type == 's' || spec.type == 'r') {
      if (spec.align == '=') spec.align = '>', spec.fill = " ";
      if (!spec.align) spec.align = '>';
      return format_text(spec.type == 's' ? to_string(budget_, value) : to_repr(budget_, value), spec);
    }
    double real = 0;
    require_defined(value);
    if (!as_real(value, real))
      throw TemplateError(concat("format: found ", type_name(value), " for %", spec.type, ", expected a number"));
    if (is_real_type(spec.type)) return format_number(real, spec);
    if (std::string_view("diuxXo").find(spec.type) == std::string_view::npos || spec.precision >= 0)
      fail_format(concat("%", spec.type));
    const bool is_decimal = spec.type == 'd' || spec.type == 'i' || spec.type == 'u';
    if (value.real() && (!is_decimal || !(std::abs(real) < 9e18)))
      throw TemplateError("format: found a real number, expected a whole one");
    return format_number(value.real() ? Value(static_cast<std::int64_t>(real)) : value, spec);
  }

  Budget& budget_;
  const std::string& format_;
  const Value& values_;
  bool is_tuple_ = false;
  std::size_t at_ = 0, taken_ = 0;
};

Spec read_spec(std::string_view text) {
  Spec spec;
  std::size_t at = 0;
  constexpr std::string_view aligns = "<>^=";
  const std::size_t fill = text.empty() ? 0 : text::character_length(text[0]);
  if (fill < text.size() && aligns.find(text[fill]) != std::string_view::npos) {
    spec.fill = text.substr(0, fill);
    spec.align = text[fill];
    at = fill + 1;
  } else if (!text.empty() && aligns.find(text[0]) != std::string_view::npos) {
    spec.align = text[at++];
  }
  const auto skip = [&](std::string_view any) {
    return at < text.size() && any.find(text[at]) != std::string_view::npos ? text[at++] : '\0';
  };
  if (const char sign = skip("+- ")) spec.sign = sign;
  spec.alternate = skip("#") != 0;
  if (skip("0") && !spec.align) spec.fill = "0", spec.align = '=';
  spec.width = read_number(text, at);
  spec.grouping = skip(",_");
  if (skip(".")) spec.precision = read_number(text, at);
  spec.type = skip("bdeEfFgGosxX%");
  if (at != text.size()) fail_format(concat("\"", text, "\""));
  return spec;
}

class BraceFormatter {
 public:
  BraceFormatter(Budget& budget, std::string_view format, const Arguments& arguments)
      : budget_(budget), format_(format), arguments_(arguments) {}

  std::string run() {
    std::string out;
    while (at_ < format_.size()) {
      const char c = format_[at_++];
      const bool doubled = at_ < format_.size() && format_[at_] == c;
      budget_.spend_bytes(1);
      if ((c == '{' || c == '}') && doubled) {
        out += c;
        ++at_;
      } else if (c == '{') {
        out += field();
      } else if (c == '}') {
        throw TemplateError("format: found a single }");
      } else {
        out += c;
      }
    }
    return out;
  }

 private:
  std::string field() {
    const std::size_t end = format_.find('}', at_);
    if (end == std::string_view::npos) throw TemplateError("format: found { without }");
    std::string_view inside = format_.substr(at_, end - at_);
    at_ = end + 1;
    if (inside.find('{') != std::string_view::npos) fail_format("a field inside a field");
    const std::size_t colon = std::min(inside.find(':'), inside.size());
    const Spec spec = read_spec(colon < inside.size() ? inside.substr(colon + 1) : "");
    inside = inside.substr(0, colon);
    const std::size_t bang = std::min(inside.find('!'), inside.size());
    const std::string_view conversion = inside.substr(bang);
    Value value = look_up(inside.substr(0, bang));
    budget_.spend_bytes(static_cast<std::uint64_t>(spec.width + std::max<std::int64_t>(spec.precision, 0)) * 4);
    if (conversion == "!s") value = Value(to_string(budget_, value));
    if (conversion == "!r") value = Value(to_repr(budget_, value));
    if (!conversion.empty() && conversion != "!s" && conversion != "!r") fail_format(conversion);
    return convert(value, spec);
  }

  std::string convert(const Value& value, const Spec& spec) {
    const bool is_plain =
        spec.width == 0 && spec.precision < 0 && !spec.type && !spec.align && spec.sign == '-' && !spec.grouping;
    if (is_plain) return to_string(budget_, value);
    if (value.string() && (!spec.type || spec.type == 's') && spec.align != '=') return format_text(*value.string(), spec);
    double real = 0;
    const bool is_good =
        as_real(value, real) && spec.type != 's' &&
        (value.real() ? spec.type ? is_real_type(spec.type) : spec.precision < 0 : is_real_type(spec.type) || spec.precision < 0);
    if (!is_good || (spec.grouping && spec.fill == "0")) fail_format(concat("this specification for ", type_name(value)));
    return format_number(value, spec);
  }

  // "", "0", "name", each with ".field" and "[key]" behind.
  Value look_up(std::string_view path) {
    const std::size_t end = std::min(path.find_first_of(".["), path.size());
    const std::string_view first = path.substr(0, end);
    Value value = argument(first);
    for (path = path.substr(end); !path.empty();) {
      const bool is_item = path[0] == '[';
      const std::size_t stop = std::min(path.find_first_of(is_item ? "]" : ".[", 1), path.size());
      const std::string_view part = path.substr(1, stop - 1);
      if (part.empty() || (is_item && stop == path.size())) throw TemplateError("format: found an empty or open part of a field");
      std::size_t digits = 0;
      const std::int64_t index = read_number(part, digits);
      const bool is_index = is_item && digits == part.size();
      value = is_index  ? item_of(budget_, value, index)
              : is_item ? item_of(budget_, value, Value(part))
                        : attribute_of(budget_, value, std::string(part));
      path = path.substr(stop + is_item);
    }
    return value;
  }

  const Value& argument(std::string_view name) {
    std::size_t digits = 0;
    const auto index = static_cast<std::size_t>(name.empty() ? next_++ : read_number(name, digits));
    if (digits == name.size()) {
      if (index >= arguments_.positional.size()) throw TemplateError("format: found more fields than values");
      return arguments_.positional[index];
    }
    const Value* found = arguments_.find(name);
    if (!found) throw TemplateError(concat("format: found the field ", name, ", which no value has"));
    return *found;
  }

  Budget& budget_;
  std::string_view format_;
  const Arguments& arguments_;
  std::size_t at_ = 0;
  std::int64_t next_ = 0;
};

}  // namespace format_detail

std::string percent_format(Budget& budget, const std::string& format, const Value& values) {
  return format_detail::PercentFormatter(budget, format, values).run();
}

std::string brace_format(Budget& budget, const std::string& format, const Arguments& arguments) {
  return format_detail::BraceFormatter(budget, format, arguments).run();
}

}  // namespace molt::jinja
