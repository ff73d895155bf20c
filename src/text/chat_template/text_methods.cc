// The methods of text.
#include <algorithm>

#include "base/error.h"
#include "text/chat_template/builtins.h"
#include "text/chat_template/strings.h"

namespace molt::jinja {
namespace text_methods {

constexpr std::string_view kStringMethods[] = {
    "strip",   "lstrip",       "rstrip",    "split",      "rsplit",       "splitlines", "startswith", "endswith",
    "replace", "upper",        "lower",     "title",      "capitalize",   "find",       "rfind",      "index",
    "rindex",  "count",        "join",      "format",     "removeprefix", "isdigit",    "isalpha",    "isalnum",
    "isspace", "removesuffix", "partition", "rpartition", "isupper",      "islower"};
// Those of Python that are not here: an error says so, instead of a wrong "undefined".
constexpr std::string_view kUnknownStringMethods[] = {
    "casefold",    "center",  "encode", "expandtabs", "format_map", "isascii",  "isdecimal", "isidentifier", "isnumeric",
    "isprintable", "istitle", "ljust",  "maketrans",  "rjust",      "swapcase", "translate", "zfill"};
bool matches(const std::string& text, const Value& what, bool (*test)(std::string_view, std::string_view)) {
  if (what.sequence() && what.sequence()->kind == Sequence::Kind::tuple) {
    return std::any_of(what.sequence()->items.begin(), what.sequence()->items.end(),
                       [&](const Value& item) { return test(text, to_text(item, "an item of the tuple")); });
  }
  return test(text, to_text(what, "startswith or endswith"));
}

// text[start:end] as text.find(…, start, end) takes it.
std::string cut(Budget& budget, const std::string& text, const Value* start, const Value* end) {
  const Value part = slice_of(budget, text, start ? *start : Value(), end ? *end : Value(), Value());
  return *part.string();
}

Value text_list(Budget& budget, const std::vector<std::string_view>& parts, Sequence::Kind kind = Sequence::Kind::list) {
  Values items;
  for (const std::string_view part : parts) items.push_back(make_string(budget, std::string(part)));
  return make_sequence(budget, kind, std::move(items));
}

std::vector<std::string_view> split_words(Budget& budget, std::string_view text, std::int64_t most, bool from_right) {
  std::vector<std::string_view> words;
  const Side outer = from_right ? Side::right : Side::left;
  for (text = strip(text, outer); !text.empty(); text = strip(text, outer)) {
    budget.spend_bytes(sizeof(std::string_view));
    if (most >= 0 && std::ssize(words) == most) {
      words.push_back(text);
      break;
    }
    std::string_view word = text;
    std::size_t size = 0;
    while (size < text.size()) {
      const std::size_t at = from_right ? text::last_character(text.substr(0, text.size() - size)) : size;
      std::size_t next = at;
      if (is_space(text::next_code_point(text, next))) break;
      size = from_right ? text.size() - at : next;
    }
    word = from_right ? text.substr(text.size() - size) : text.substr(0, size);
    words.push_back(word);
    if (from_right) {
      text.remove_suffix(size);
    } else {
      text.remove_prefix(size);
    }
  }
  if (from_right) std::reverse(words.begin(), words.end());
  return words;
}

std::vector<std::string_view> split_at(Budget& budget, std::string_view text, std::string_view separator, std::int64_t most) {
  if (separator.empty()) throw TemplateError("split: found an empty separator");
  std::vector<std::string_view> parts;
  std::size_t begin = 0;
  while (most < 0 || std::ssize(parts) < most) {
    const std::size_t found = find_bytes(text, separator, begin);
    if (found == std::string_view::npos) break;
    budget.spend_bytes(sizeof(std::string_view));
    parts.push_back(text.substr(begin, found - begin));
    begin = found + separator.size();
  }
  parts.push_back(text.substr(begin));
  return parts;
}

std::vector<std::string_view> rsplit_at(Budget& budget, std::string_view text, std::string_view separator, std::int64_t most) {
  std::vector<std::string_view> parts = split_at(budget, text, separator, -1);
  if (most < 0 || std::ssize(parts) <= most + 1) return parts;
  // The same from the right only where separators overlap nowhere; look from the right.
  parts.clear();
  while (std::ssize(parts) < most) {
    budget.spend_steps(text.size() / 64 + 1);
    const std::size_t found = rfind_bytes(text, separator);
    if (found == std::string_view::npos) break;
    parts.push_back(text.substr(found + separator.size()));
    text = text.substr(0, found);
  }
  parts.push_back(text);
  std::reverse(parts.begin(), parts.end());
  return parts;
}

Value split(Budget& budget, const std::string& text, const std::string& name, const Arguments& arguments) {
  const auto given = bind_arguments(name, arguments, {"sep", "maxsplit"});
  const std::int64_t most = given[1] ? to_integer(*given[1], "maxsplit") : -1;
  const bool from_right = name == "rsplit";
  if (!given[0] || given[0]->is_none()) return text_list(budget, split_words(budget, text, most, from_right));
  const std::string& separator = to_text(*given[0], "separator of split");
  return text_list(budget, from_right ? rsplit_at(budget, text, separator, most) : split_at(budget, text, separator, most));
}

Value partition(Budget& budget, std::string_view text, const std::string& name, const Arguments& arguments) {
  const std::string& separator = to_text(*bind_arguments(name, arguments, {"sep"}, 1)[0], "separator of partition");
  if (separator.empty()) throw TemplateError("partition: found an empty separator");
  const bool from_right = name == "rpartition";
  const std::size_t at = from_right ? rfind_bytes(text, separator) : find_bytes(text, separator);
  constexpr auto tuple = Sequence::Kind::tuple;
  if (at == std::string_view::npos)
    return from_right ? text_list(budget, {"", "", text}, tuple) : text_list(budget, {text, "", ""}, tuple);
  return text_list(budget, {text.substr(0, at), separator, text.substr(at + separator.size())}, tuple);
}

Value find_text(Budget& budget, const std::string& text, const std::string& name, const Arguments& arguments) {
  const auto given = bind_arguments(name, arguments, {"sub", "start", "end"}, 1);
  const std::string& needle = to_text(*given[0], "text to look for");
  const std::string part = cut(budget, text, given[1], given[2]);
  if (name == "count") {
    if (needle.empty()) return count_characters(part) + 1;
    return std::ssize(split_at(budget, part, needle, -1)) - 1;
  }
  const std::size_t at = name[0] == 'r' ? rfind_bytes(part, needle) : find_bytes(part, needle);
  if (at == std::string::npos) {
    if (name.ends_with("index")) throw TemplateError(concat(name, ": found no \"", needle, "\" in the text"));
    return std::int64_t{-1};
  }
  std::int64_t start = given[1] && !given[1]->is_none() ? to_integer(*given[1], "start") : 0;
  if (start < 0) start = std::max<std::int64_t>(0, start + count_characters(text));
  return start + count_characters(std::string_view(part).substr(0, at));
}

}  // namespace text_methods

using namespace text_methods;

bool is_text_method(std::string_view name) {
  if (is_one_of(name, kUnknownStringMethods))
    throw TemplateError(concat("found the method ", name, " of text, which is not supported"));
  return is_one_of(name, kStringMethods);
}

Value call_text_method(Budget& budget, const std::string& text, const std::string& name, const Arguments& arguments) {
  budget.spend_bytes(text.size());
  if (name == "strip" || name == "lstrip" || name == "rstrip") {
    const Side side = name[0] == 'l' ? Side::left : name[0] == 'r' ? Side::right : Side::both;
    const auto given = bind_arguments(name, arguments, {"chars"});
    if (!given[0] || given[0]->is_none()) return Value(strip(text, side));
    const std::string& chars = to_text(*given[0], "characters to strip");
    budget.spend_steps(text.size() * (chars.size() / 16 + 1));
    return Value(strip(text, chars, side));
  }
  if (is_one_of(name, {"split", "rsplit"})) return split(budget, text, name, arguments);
  if (is_one_of(name, {"partition", "rpartition"})) return partition(budget, text, name, arguments);
  if (is_one_of(name, {"find", "rfind", "index", "rindex", "count"})) return find_text(budget, text, name, arguments);
  if (is_one_of(name, {"startswith", "endswith"})) {
    const auto given = bind_arguments(name, arguments, {"prefix", "start", "end"}, 1);
    const auto starts = [](std::string_view all, std::string_view part) { return all.starts_with(part); };
    const auto ends = [](std::string_view all, std::string_view part) { return all.ends_with(part); };
    return matches(cut(budget, text, given[1], given[2]), *given[0], name == "startswith" ? +starts : +ends);
  }
  if (is_one_of(name, {"removeprefix", "removesuffix"})) {
    const std::string& part = to_text(*bind_arguments(name, arguments, {"part"}, 1)[0], "text to remove");
    if (name == "removeprefix" && text.starts_with(part)) return Value(text.substr(part.size()));
    return Value(name == "removesuffix" && text.ends_with(part) ? text.substr(0, text.size() - part.size()) : text);
  }
  if (name == "replace") {
    const auto given = bind_arguments(name, arguments, {"old", "new", "count"}, 2);
    return Value(replace_all(budget, text, to_text(*given[0], "text to replace"), to_text(*given[1], "replacement"),
                             given[2] ? to_integer(*given[2], "count") : -1));
  }
  if (name == "join") {
    const Values items = iterate(budget, *bind_arguments(name, arguments, {"iterable"}, 1)[0]);
    for (const Value& item : items) to_text(item, "an item to join");
    return Value(join(budget, text, items));
  }
  if (name == "format") return Value(brace_format(budget, text, arguments));
  if (name == "splitlines") {
    const auto given = bind_arguments(name, arguments, {"keepends"});
    if (given[0] && truth(*given[0])) throw TemplateError("splitlines: found keepends, expected no argument");
    return text_list(budget, split_lines(text));
  }
  bind_arguments(name, arguments, {});
  budget.spend_bytes(2 * text.size());
  if (name == "upper") return Value(upper(text));
  if (name == "lower") return Value(lower(text));
  if (name == "title") return Value(title(text));
  if (name == "capitalize") return Value(capitalize(text));
  return all_characters(text, name);
}

std::string replace_all(Budget& budget, std::string_view text, std::string_view from, std::string_view to, std::int64_t most) {
  std::string out;
  std::size_t at = 0;
  budget.spend_bytes(text.size());
  for (std::int64_t i = 0; most < 0 || i < most; ++i) {
    const std::size_t found = from.empty() ? at : find_bytes(text, from, at);
    if (found == std::string_view::npos) break;
    budget.spend_bytes(to.size() + 1);
    out += text.substr(at, found - at);
    out += to;
    at = found + from.size();
    if (!from.empty()) continue;
    if (at == text.size()) return out;
    const std::size_t size = text::character_length(text[at]);
    out += text.substr(at, size);
    at += size;
  }
  out += text.substr(at);
  return out;
}

std::string join(Budget& budget, std::string_view separator, const Values& items) {
  std::string out;
  for (std::size_t i = 0; i < items.size(); ++i) {
    budget.spend_bytes(separator.size() + 1);
    if (i) out += separator;
    out += to_string(budget, items[i]);
  }
  return out;
}

}  // namespace molt::jinja
