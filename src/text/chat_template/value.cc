#include "text/chat_template/value.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "text/chat_template/strings.h"

namespace molt::jinja {
namespace value_detail {

constexpr int kDeepest = 500;

int depth_of(const Value& value) {
  if (const Sequence* sequence = value.sequence()) return sequence->depth;
  if (const Dict* dict = value.dict()) return dict->depth;
  return 0;
}

int checked_depth(int inner) {
  if (inner >= kDeepest) throw TemplateError(concat("found lists nested deeper than ", kDeepest, ", expected fewer levels"));
  return inner + 1;
}

void append_key(Budget& budget, const Value& key, std::string& out) {
  double number = 0;
  std::int64_t whole = 0;
  const Sequence* sequence = key.sequence();
  budget.spend_bytes(16);
  if (const std::string* text = key.string()) {
    budget.spend_bytes(text->size());
    out += concat("s", text->size(), ":") + *text;
  } else if (as_integer(key, whole)) {
    out += concat("i", whole, ";");
  } else if (as_real(key, number)) {
    const bool exact = std::abs(number) < 9.2e18 && number == std::floor(number);
    out += exact ? concat("i", static_cast<std::int64_t>(number), ";") : "f" + real_to_string(number) + ";";
  } else if (key.is_none() || key.is_undefined()) {
    out += key.is_none() ? "n" : "u";
  } else if (sequence && sequence->kind == Sequence::Kind::tuple) {
    out += "(";
    for (const Value& item : sequence->items) append_key(budget, item, out);
    out += ")";
  } else {
    throw TemplateError(concat("unhashable type: found ", type_name(key), ", expected a string, number or tuple"));
  }
}

// -1, 0 or 1; 2 where one is no number.
int compare_numbers(const Value& left, const Value& right) {
  std::int64_t a = 0, b = 0;
  if (as_integer(left, a) && as_integer(right, b)) return a < b ? -1 : a > b;
  const auto number = [](const Value& value) { return value.real() ? static_cast<long double>(*value.real()) : 0.0L; };
  const long double x = as_integer(left, a) ? static_cast<long double>(a) : number(left);
  const long double y = as_integer(right, b) ? static_cast<long double>(b) : number(right);
  return x < y ? -1 : x > y ? 1 : x == y ? 0 : 2;
}

bool equal_dicts(Budget& budget, const Dict& left, const Dict& right) {
  if (left.entries.size() != right.entries.size()) return false;
  return std::all_of(left.entries.begin(), left.entries.end(), [&](const auto& entry) {
    const Value* other = find(budget, right, entry.first);
    return other && equal(budget, entry.second, *other);
  });
}

}  // namespace value_detail

using namespace value_detail;

void Budget::spend_steps(std::uint64_t count) {
  if (count > static_cast<std::uint64_t>(steps_)) throw TemplateError("found a template that takes too many steps to evaluate");
  steps_ -= static_cast<std::int64_t>(count);
}

void Budget::spend_bytes(std::uint64_t count) {
  if (count > static_cast<std::uint64_t>(bytes_))
    throw TemplateError("found a template that makes too much text or too long lists");
  bytes_ -= static_cast<std::int64_t>(count);
}

Value Value::undefined(std::string why) {
  Value value;
  value.data_ = Undefined{std::make_shared<const std::string>(std::move(why))};
  return value;
}

const Value* Dict::find(std::string_view key) const {
  const auto found = index.find(concat("s", key.size(), ":").append(key));
  return found == index.end() ? nullptr : &entries[found->second].second;
}

const Value* Arguments::find(std::string_view name) const {
  for (const auto& [key, value] : named) {
    if (key == name) return &value;
  }
  return nullptr;
}

Value make_sequence(Budget& budget, Sequence::Kind kind, Values items, std::string name) {
  budget.spend_bytes(64 + items.size() * sizeof(Value));
  int inner = 0;
  for (const Value& item : items) inner = std::max(inner, depth_of(item));
  return std::make_shared<const Sequence>(Sequence{kind, std::move(items), checked_depth(inner), std::move(name)});
}

Value make_dict(Budget& budget, std::vector<std::pair<Value, Value>> entries) {
  auto dict = std::make_shared<Dict>();
  int inner = 0;
  for (auto& [key, value] : entries) {
    budget.spend_bytes(2 * sizeof(Value) + 64);
    inner = std::max(inner, depth_of(value));
    const auto [at, is_new] = dict->index.emplace(dict_key(budget, key), dict->entries.size());
    if (is_new) {
      dict->entries.emplace_back(std::move(key), std::move(value));
    } else {
      dict->entries[at->second].second = std::move(value);
    }
  }
  dict->depth = checked_depth(inner);
  return std::shared_ptr<const Dict>(std::move(dict));
}

Value make_string(Budget& budget, std::string text) {
  budget.spend_bytes(text.size() + 32);
  return Value(std::move(text));
}

Value make_method(const Value& receiver, std::string_view name) {
  return std::make_shared<const Callable>(Callable{.name = std::string(name), .receiver = receiver, .is_method = true});
}

std::string dict_key(Budget& budget, const Value& key) {
  std::string out;
  append_key(budget, key, out);
  return out;
}

const Value* find(Budget& budget, const Dict& dict, const Value& key) {
  const auto found = dict.index.find(dict_key(budget, key));
  return found == dict.index.end() ? nullptr : &dict.entries[found->second].second;
}

const char* type_name(const Value& value) {
  if (const Sequence* sequence = value.sequence()) {
    constexpr const char* names[] = {"list", "tuple", "range", "dict view", "iterator"};
    return names[static_cast<int>(sequence->kind)];
  }
  constexpr const char* names[] = {"an undefined value", "None",     "bool", "int", "float", "str", "list", "dict",
                                   "namespace",          "function", "loop"};
  return names[value.data().index()];
}

void require_defined(const Value& value) {
  if (const auto* undefined = std::get_if<Undefined>(&value.data())) throw TemplateError(*undefined->why);
}

bool truth(const Value& value) {
  if (value.is_undefined() || value.is_none()) return false;
  if (const bool* flag = value.boolean()) return *flag;
  if (const auto* number = value.integer()) return *number != 0;
  if (const double* number = value.real()) return *number != 0;
  if (const std::string* text = value.string()) return !text->empty();
  if (const Dict* dict = value.dict()) return !dict->entries.empty();
  if (const Sequence* sequence = value.sequence()) return sequence->kind == Sequence::Kind::iterator || !sequence->items.empty();
  return true;
}

bool equal(Budget& budget, const Value& left, const Value& right) {
  budget.spend_steps();
  if (is_number(left) && is_number(right)) return compare_numbers(left, right) == 0;
  if (left.data().index() != right.data().index()) return false;
  if (left.is_none() || left.is_undefined()) return true;
  if (const std::string* text = left.string()) {
    budget.spend_steps(text->size() / 64);
    return *text == *right.string();
  }
  if (const Dict* dict = left.dict()) return dict == right.dict() || equal_dicts(budget, *dict, *right.dict());
  if (const Sequence *a = left.sequence(), *b = right.sequence(); a) {
    if (a == b) return true;
    if (a->kind != b->kind || !a->indexable() || a->items.size() != b->items.size()) return false;
    return std::equal(a->items.begin(), a->items.end(), b->items.begin(),
                      [&](const Value& x, const Value& y) { return equal(budget, x, y); });
  }
  if (left.name_space()) return left.name_space() == right.name_space();
  return left.callable() ? left.callable() == right.callable() : left.loop() == right.loop();
}

bool less(Budget& budget, const Value& left, const Value& right) {
  budget.spend_steps();
  require_defined(left);
  require_defined(right);
  if (is_number(left) && is_number(right)) return compare_numbers(left, right) == -1;
  if (left.string() && right.string()) {
    budget.spend_steps(left.string()->size() / 64);
    return *left.string() < *right.string();  // order of bytes is order of code points in UTF-8
  }
  const Sequence *a = left.sequence(), *b = right.sequence();
  if (a && b && a->kind == b->kind && a->kind <= Sequence::Kind::tuple) {
    for (std::size_t i = 0; i < a->items.size() && i < b->items.size(); ++i) {
      if (!equal(budget, a->items[i], b->items[i])) return less(budget, a->items[i], b->items[i]);
    }
    return a->items.size() < b->items.size();
  }
  throw TemplateError(
      concat("found a comparison of ", type_name(left), " with ", type_name(right), ", expected types with an order"));
}

bool contains(Budget& budget, const Value& container, const Value& item) {
  if (const std::string* text = container.string()) {
    require_defined(item);
    budget.spend_steps(text->size() / 64);
    return find_bytes(*text, to_text(item, "left of in")) != std::string::npos;
  }
  if (const Dict* dict = container.dict()) return find(budget, *dict, item) != nullptr;
  const Values items = iterate(budget, container);
  return std::any_of(items.begin(), items.end(), [&](const Value& other) { return equal(budget, item, other); });
}

std::int64_t length(const Value& value) {
  if (value.is_undefined()) return 0;
  if (const std::string* text = value.string()) return count_characters(*text);
  if (const Dict* dict = value.dict()) return static_cast<std::int64_t>(dict->entries.size());
  if (const Loop* loop = value.loop()) return static_cast<std::int64_t>(loop->items.size());
  const Sequence* sequence = value.sequence();
  return sequence && sequence->kind != Sequence::Kind::iterator ? static_cast<std::int64_t>(sequence->items.size()) : -1;
}

bool iterable(const Value& value) {
  return value.is_undefined() || value.string() || value.dict() || value.sequence();
}

Values iterate(Budget& budget, const Value& value) {
  if (value.is_undefined()) return {};
  Values items;
  if (const Sequence* sequence = value.sequence()) {
    const std::size_t from = sequence->kind == Sequence::Kind::iterator ? sequence->next : 0;
    budget.spend_bytes((sequence->items.size() - from) * sizeof(Value));
    items.assign(sequence->items.begin() + static_cast<std::ptrdiff_t>(from), sequence->items.end());
    sequence->next = sequence->items.size();
  } else if (const Dict* dict = value.dict()) {
    budget.spend_bytes(dict->entries.size() * sizeof(Value));
    for (const auto& [key, member] : dict->entries) items.push_back(key);
  } else if (const std::string* text = value.string()) {
    for (std::size_t at = 0; at < text->size();) {
      const std::size_t size = text::character_length((*text)[at]);
      items.push_back(make_string(budget, text->substr(at, size)));
      at += size;
    }
  } else {
    throw TemplateError(concat("found ", type_name(value), ", expected something to go through (a list, a dict, text)"));
  }
  return items;
}

std::int64_t to_integer(const Value& value, const char* what) {
  require_defined(value);
  std::int64_t number = 0;
  if (!as_integer(value, number)) throw TemplateError(concat(what, ": found ", type_name(value), ", expected a whole number"));
  return number;
}

const std::string& to_text(const Value& value, const char* what) {
  require_defined(value);
  if (!value.string()) throw TemplateError(concat(what, ": found ", type_name(value), ", expected text"));
  return *value.string();
}

bool is_number(const Value& value) {
  return value.boolean() || value.integer() || value.real();
}

bool as_integer(const Value& value, std::int64_t& out) {
  if (const bool* flag = value.boolean()) return out = *flag, true;
  if (const auto* number = value.integer()) return out = *number, true;
  return false;
}

bool as_real(const Value& value, double& out) {
  std::int64_t whole = 0;
  if (as_integer(value, whole)) return out = static_cast<double>(whole), true;
  if (const double* number = value.real()) return out = *number, true;
  return false;
}

}  // namespace molt::jinja
