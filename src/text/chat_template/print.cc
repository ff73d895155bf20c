// How values print: str(), repr() and json.dumps() of Python.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "base/error.h"
#include "text/chat_template/strings.h"
#include "text/chat_template/value.h"

namespace molt::jinja {
namespace print_detail {

// Appends to text and pays for it.
class Writer {
 public:
  explicit Writer(Budget& budget) : budget_(budget) {}
  void add(std::string_view text) {
    budget_.spend_bytes(text.size() + 1);
    text_ += text;
  }
  Budget& budget() { return budget_; }
  std::string take() { return std::move(text_); }

 private:
  Budget& budget_;
  std::string text_;
};

template <class... Numbers>
std::string print_hex(const char* format, Numbers... numbers) {
  char text[32];
  std::snprintf(text, sizeof text, format, numbers...);
  return text;
}

std::string quote_text(std::string_view text) {
  const bool doubles = text.find('\'') != text.npos && text.find('"') == text.npos;
  const char quote = doubles ? '"' : '\'';
  std::string out(1, quote);
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t begin = at;
    const char32_t c = text::next_code_point(text, at);
    if (c == '\\' || c == static_cast<unsigned char>(quote)) {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n' || c == '\r' || c == '\t') {
      out += c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t";
    } else if (is_printable(c)) {
      out += text.substr(begin, at - begin);
    } else {
      out += print_hex(c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", static_cast<unsigned>(c));
    }
  }
  return out + quote;
}

// A value that stands alone; empty for lists, tuples, dicts.
std::string scalar(const Value& value) {
  if (value.is_none()) return "None";
  if (const bool* flag = value.boolean()) return *flag ? "True" : "False";
  if (const auto* number = value.integer()) return std::to_string(*number);
  if (const double* number = value.real()) return real_to_string(*number);
  if (value.is_undefined()) return "Undefined";
  return {};
}

void repr(Writer& out, const Value& value);

void repr_items(Writer& out, const Values& items) {
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (i) out.add(", ");
    repr(out, items[i]);
  }
}

void repr_sequence(Writer& out, const Sequence& sequence) {
  switch (sequence.kind) {
    case Sequence::Kind::range:
      return out.add(sequence.name);
    case Sequence::Kind::iterator:
      throw TemplateError("found an iterator to print, expected a list (the filter list makes one)");
    case Sequence::Kind::view:
      out.add(sequence.name + "([");
      repr_items(out, sequence.items);
      return out.add("])");
    case Sequence::Kind::tuple:
      out.add("(");
      repr_items(out, sequence.items);
      return out.add(sequence.items.size() == 1 ? ",)" : ")");
    case Sequence::Kind::list:
      out.add("[");
      repr_items(out, sequence.items);
      out.add("]");
  }
}

void repr(Writer& out, const Value& value) {
  if (const std::string* text = value.string()) return out.add(quote_text(*text));
  if (const Sequence* sequence = value.sequence()) return repr_sequence(out, *sequence);
  if (const Dict* dict = value.dict()) {
    const char* before = "{";
    for (const auto& [key, member] : dict->entries) {
      out.add(before);
      repr(out, key);
      out.add(": ");
      repr(out, member);
      before = ", ";
    }
    return out.add(dict->entries.empty() ? "{}" : "}");
  }
  const std::string text = scalar(value);
  if (text.empty()) throw TemplateError(concat("found a ", type_name(value), " to print, expected a value"));
  out.add(text);
}

std::string json_string(std::string_view text, bool ascii) {
  std::string out = "\"";
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t begin = at;
    const char32_t c = text::next_code_point(text, at);
    constexpr std::u32string_view plain = U"\"\\\n\r\t\f\b";
    if (const std::size_t found = plain.find(c); found != plain.npos) {
      out += '\\';
      out += "\"\\nrtfb"[found];
    } else if (c < 0x20 || (ascii && c > 0x7E && c < 0x10000)) {
      out += print_hex("\\u%04x", static_cast<unsigned>(c));
    } else if (ascii && c >= 0x10000) {
      out += print_hex("\\u%04x\\u%04x", 0xD800u + static_cast<unsigned>((c - 0x10000) >> 10), 0xDC00u + (c & 0x3FFu));
    } else {
      out += text.substr(begin, at - begin);
    }
  }
  return out + '"';
}

std::string json_scalar(const Value& value) {
  if (value.is_none()) return "null";
  if (const bool* flag = value.boolean()) return *flag ? "true" : "false";
  if (const double* number = value.real(); number && !std::isfinite(*number))
    return std::isnan(*number) ? "NaN" : *number > 0 ? "Infinity" : "-Infinity";
  if (value.integer() || value.real()) return scalar(value);
  require_defined(value);
  throw TemplateError(concat("tojson: found a ", type_name(value), ", expected a value that JSON has"));
}

// A key of an object before quotes.
std::string json_key(const Value& key) {
  if (key.string()) return *key.string();
  if (key.sequence()) throw TemplateError("tojson: found a tuple as a key, expected text or a number");
  return json_scalar(key);
}

void json(Writer& out, const Value& value, const JsonStyle& style, int depth);

// `count` members between two brackets; `member` writes the i-th.
template <class Member>
void json_members(Writer& out, const char* brackets, std::size_t count, const JsonStyle& style, int depth, Member member) {
  const auto new_line = [&](int level) {
    if (!style.indented) return;
    out.add("\n");
    for (int i = 0; i < level; ++i) out.add(style.indent);
  };
  out.add(std::string_view(brackets, 1));
  for (std::size_t i = 0; i < count; ++i) {
    if (i) out.add(style.item_separator);
    new_line(depth + 1);
    member(i);
  }
  if (count) new_line(depth);
  out.add(std::string_view(brackets + 1, 1));
}

void json(Writer& out, const Value& value, const JsonStyle& style, int depth) {
  if (const std::string* text = value.string()) return out.add(json_string(*text, style.ascii));
  if (const Sequence* sequence = value.sequence(); sequence && sequence->kind <= Sequence::Kind::tuple) {
    return json_members(out, "[]", sequence->items.size(), style, depth,
                        [&](std::size_t i) { json(out, sequence->items[i], style, depth + 1); });
  }
  if (const Dict* dict = value.dict()) {
    auto entries = dict->entries;
    out.budget().spend_bytes(entries.size() * sizeof(entries[0]));
    if (style.sorted) {
      std::stable_sort(entries.begin(), entries.end(),
                       [&](const auto& a, const auto& b) { return less(out.budget(), a.first, b.first); });
    }
    return json_members(out, "{}", entries.size(), style, depth, [&](std::size_t i) {
      out.add(json_string(json_key(entries[i].first), style.ascii));
      out.add(style.key_separator);
      json(out, entries[i].second, style, depth + 1);
    });
  }
  out.add(json_scalar(value));
}

}  // namespace print_detail

// The shortest digits that read back as the same number; with an exponent below 1e-4 and from 1e16 on.
std::string real_to_string(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char text[64];
  const auto scientific = std::to_chars(text, text + sizeof text, value, std::chars_format::scientific);
  const std::string exponential(text, scientific.ptr);
  const int exponent = std::stoi(exponential.substr(exponential.find('e') + 1));
  if (value != 0 && (exponent < -4 || exponent >= 16)) return exponential;
  const auto fixed = std::to_chars(text, text + sizeof text, value, std::chars_format::fixed);
  const std::string plain(text, fixed.ptr);
  return plain.find('.') == plain.npos ? plain + ".0" : plain;
}

std::string to_string(Budget& budget, const Value& value) {
  if (value.is_undefined()) return "";
  if (const std::string* text = value.string()) {
    budget.spend_bytes(text->size());
    return *text;
  }
  return to_repr(budget, value);
}

std::string to_repr(Budget& budget, const Value& value) {
  print_detail::Writer out(budget);
  print_detail::repr(out, value);
  return out.take();
}

std::string to_json(Budget& budget, const Value& value, const JsonStyle& style) {
  print_detail::Writer out(budget);
  print_detail::json(out, value, style, 0);
  return out.take();
}

}  // namespace molt::jinja
