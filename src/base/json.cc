#include "base/json.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <type_traits>

#include "base/error.h"

namespace molt {

namespace json_detail {

constexpr int deepest = 256;
constexpr std::size_t longest_shown = 60;

// `place` with the line and column of text[offset]. A place that names a line already ("traces.jsonl:17") gets the column only.
std::string place_of(std::string_view text, std::size_t offset, const std::string& place) {
  const std::string_view before = text.substr(0, offset);
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');
  const std::size_t line_start = before.rfind('\n') == std::string_view::npos ? 0 : before.rfind('\n') + 1;
  const std::size_t column = offset - line_start + 1;
  const std::size_t colon = place.rfind(':');
  const bool has_line = colon != std::string::npos && colon + 1 < place.size() &&
                        place.find_first_not_of("0123456789", colon + 1) == std::string::npos;
  return has_line && line == 1 ? concat(place, ":", column) : concat(place, ":", line, ":", column);
}

// The parser itself does not recurse, but writing, copying and comparing a deep value would.
void check_depth(std::string_view text, const std::string& place) {
  int depth = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > deepest) fail(place_of(text, i, place), ": nested deeper than ", deepest, " levels");
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
}

// nlohmann's reason without its prefixes: "unexpected end of input; expected ']'".
std::string reason(std::string what) {
  for (const char* prefix : {"[json.exception.", "parse error", "syntax error while parsing"}) {
    if (!what.starts_with(prefix)) continue;
    const bool named = prefix[0] == '[';
    const std::string_view end = named ? "] " : prefix[0] == 'p' ? ": " : " - ";
    const std::size_t found = what.find(end);
    if (found != std::string::npos) what.erase(0, found + end.size());
  }
  // What was read last can be a whole book.
  if (const std::size_t last = what.find("; last read: "); last != std::string::npos && what.size() > last + 100) {
    const std::size_t expected = what.find("; expected ", last);
    what.erase(last, expected == std::string::npos ? std::string::npos : expected - last);
  }
  return what;
}

template <class Value>
Value parse(std::string_view text, const std::string& place) {
  check_depth(text, place);
  refuse_lfs_pointer(text, place);
  try {
    return Value::parse(text.begin(), text.end());
  } catch (const Json::parse_error& error) {
    const std::size_t offset = std::min(text.size(), error.byte > 0 ? error.byte - 1 : 0);
    fail(place_of(text, offset, place), ": no valid JSON: ", reason(error.what()));
  } catch (const Json::out_of_range& error) {
    fail(place, ": ", reason(error.what()));
  }
}

template <class Value>
std::string dump(const Value& value, int indent) {
  return value.dump(indent, ' ', false, Value::error_handler_t::replace);
}

// A value as messages show it: short, one line.
std::string shown(const Json& value) {
  if (value.is_object()) return "an object";
  if (value.is_array()) return concat("a list of ", value.size());
  std::string text = dump(value, -1);
  if (text.size() <= longest_shown) return text;
  std::size_t end = longest_shown;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
  return text.substr(0, end) + "…";
}

template <class T>
struct Reader;

template <>
struct Reader<bool> {
  static constexpr const char* expected = "true or false";
  static bool read(const Json& value, bool& out) {
    if (!value.is_boolean()) return false;
    out = value.get<bool>();
    return true;
  }
};

template <>
struct Reader<std::int64_t> {
  static constexpr const char* expected = "a whole number";
  static bool read(const Json& value, std::int64_t& out) {
    if (value.is_number_unsigned()) {
      const auto number = value.get<std::uint64_t>();
      out = static_cast<std::int64_t>(number);
      return number <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
    }
    if (value.is_number_integer()) {
      out = value.get<std::int64_t>();
      return true;
    }
    if (!value.is_number_float()) return false;
    const auto number = value.get<double>();  // 1e6 and 10000.0 are whole numbers to the programs that wrote them
    if (number != std::floor(number) || std::abs(number) > 0x1p53) return false;
    out = static_cast<std::int64_t>(number);
    return true;
  }
};

template <>
struct Reader<double> {
  static constexpr const char* expected = "a number";
  static bool read(const Json& value, double& out) {
    if (!value.is_number()) return false;
    out = value.get<double>();
    return true;
  }
};

template <>
struct Reader<std::string> {
  static constexpr const char* expected = "a text";
  static bool read(const Json& value, std::string& out) {
    if (!value.is_string()) return false;
    out = value.get_ref<const std::string&>();
    return true;
  }
};

template <class T>
void read(const Json& value, T& out, const std::string& key, const std::string& place) {
  if (!Reader<T>::read(value, out)) fail(place, ": ", key, ": found ", shown(value), ", expected ", Reader<T>::expected);
}

template <class T>
void read(const Json& value, std::vector<T>& out, const std::string& key, const std::string& place) {
  if (!value.is_array()) fail(place, ": ", key, ": found ", shown(value), ", expected a list");
  for (std::size_t i = 0; i < value.size(); ++i) {
    T element;
    read(value[i], element, concat(key, "[", i, "]"), place);
    out.push_back(std::move(element));
  }
}

}  // namespace json_detail

Json parse_json(std::string_view text, const std::string& place) {
  return json_detail::parse<Json>(text, place);
}

OrderedJson parse_ordered_json(std::string_view text, const std::string& place) {
  return json_detail::parse<OrderedJson>(text, place);
}

Json read_json(const fs::path& path) {
  return parse_json(MappedFile::open(path, Access::sequential)->text(), path.string());
}

void write_json(const fs::path& path, const Json& value) {
  write_file(path, json_detail::dump(value, 2) + "\n");
}
void write_json(const fs::path& path, const OrderedJson& value) {
  write_file(path, json_detail::dump(value, 2) + "\n");
}

std::string to_line(const Json& value) {
  return json_detail::dump(value, -1);
}
std::string to_line(const OrderedJson& value) {
  return json_detail::dump(value, -1);
}

template <class T>
T get(const Json& object, const std::string& key, const std::string& place) {
  if (!object.is_object()) fail(place, ": found ", json_detail::shown(object), ", expected an object");
  const auto member = object.find(key);
  require(member != object.end(), place, ": ", key, ": missing");
  T value{};
  json_detail::read(*member, value, key, place);
  return value;
}

template <class T>
T get_or(const Json& object, const std::string& key, T otherwise, const std::string& place) {
  if (!object.is_object()) fail(place, ": found ", json_detail::shown(object), ", expected an object");
  const auto member = object.find(key);
  return member == object.end() || member->is_null() ? otherwise : get<T>(object, key, place);
}

#define MOLT_JSON_TYPE(T)                                                 \
  template T get<T>(const Json&, const std::string&, const std::string&); \
  template T get_or<T>(const Json&, const std::string&, T, const std::string&)
MOLT_JSON_TYPE(bool);
MOLT_JSON_TYPE(std::int64_t);
MOLT_JSON_TYPE(double);
MOLT_JSON_TYPE(std::string);
MOLT_JSON_TYPE(std::vector<std::int64_t>);
MOLT_JSON_TYPE(std::vector<double>);
MOLT_JSON_TYPE(std::vector<std::string>);
#undef MOLT_JSON_TYPE

}  // namespace molt
