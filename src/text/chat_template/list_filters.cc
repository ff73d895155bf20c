#include "text/chat_template/list_filters.h"

#include <algorithm>
#include <charconv>
#include <unordered_set>

#include "base/error.h"
#include "text/chat_template/strings.h"

namespace molt::jinja {
namespace list_filters {

// What map, select and their like give: it can be gone through once, and is true even when empty.
Value make_iterator(Evaluator& evaluator, Values items) {
  return make_sequence(evaluator.budget(), Sequence::Kind::iterator, std::move(items));
}

Value make_list(Evaluator& evaluator, Values items) {
  return make_sequence(evaluator.budget(), Sequence::Kind::list, std::move(items));
}

Value to_part(std::string_view part) {
  std::int64_t index = 0;
  const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), index);
  const bool is_index = !part.empty() && part[0] != '-' && error == std::errc() && end == part.data() + part.size();
  return is_index ? Value(index) : Value(part);
}

// item.a.b for the path "a.b", item itself for None; parts of digits are indices.
Value follow(Evaluator& evaluator, Value item, const Value& path, const Value* otherwise = nullptr) {
  if (path.is_none()) return item;
  Values parts{path};
  if (const std::string* text = path.string()) {
    parts.clear();
    for (std::size_t begin = 0, end = 0; end != std::string::npos; begin = end + 1) {
      end = text->find('.', begin);
      parts.push_back(to_part(std::string_view(*text).substr(begin, end - begin)));
    }
  }
  for (const Value& part : parts) {
    item = item_of(evaluator.budget(), item, part);
    if (otherwise && !otherwise->is_none() && item.is_undefined()) item = *otherwise;
  }
  return item;
}

Value folded(Evaluator& evaluator, const Value& value, bool case_sensitive) {
  if (case_sensitive || !value.string()) return value;
  return make_string(evaluator.budget(), lower(*value.string()));
}

bool flag(const Value* value) {
  return value && truth(*value);
}

// Items in the order of their keys; equal ones stay in the order that they have, reversed or not.
Values sorted(Evaluator& evaluator, Values items, const Values& keys, bool reverse) {
  std::vector<std::size_t> order(items.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return reverse ? less(evaluator.budget(), keys[b], keys[a]) : less(evaluator.budget(), keys[a], keys[b]);
  });
  Values out;
  for (const std::size_t i : order) out.push_back(std::move(items[i]));
  return out;
}

Value sort(Evaluator& evaluator, const Value& value, const Arguments& arguments) {
  const auto given = bind_arguments("sort", arguments, {"reverse", "case_sensitive", "attribute"});
  Values items = iterate(evaluator.budget(), value), keys;
  std::vector<Value> paths;
  if (given[2] && given[2]->string()) {
    const std::string& text = *given[2]->string();
    for (std::size_t begin = 0, end = 0; end != std::string::npos; begin = end + 1) {
      end = text.find(',', begin);
      paths.emplace_back(text.substr(begin, end - begin));
    }
  } else {
    paths.push_back(given[2] ? *given[2] : Value());
  }
  for (const Value& item : items) {
    Values parts;
    for (const Value& path : paths) parts.push_back(folded(evaluator, follow(evaluator, item, path), flag(given[1])));
    keys.push_back(make_list(evaluator, std::move(parts)));
  }
  return make_list(evaluator, sorted(evaluator, std::move(items), keys, flag(given[0])));
}

Value dictsort(Evaluator& evaluator, const Value& value, const Arguments& arguments) {
  const auto given = bind_arguments("dictsort", arguments, {"case_sensitive", "by", "reverse"});
  const std::string by = given[1] ? to_text(*given[1], "by of dictsort") : "key";
  require_defined(value);
  if (!is_one_of(by, {"key", "value"})) throw TemplateError(concat("by of dictsort: found ", by, ", expected key or value"));
  if (!value.dict()) throw TemplateError(concat("dictsort: found ", type_name(value), ", expected a dict"));
  Values items, keys;
  for (const auto& [key, member] : value.dict()->entries) {
    items.push_back(make_sequence(evaluator.budget(), Sequence::Kind::tuple, {key, member}));
    keys.push_back(folded(evaluator, by == "key" ? key : member, flag(given[0])));
  }
  return make_list(evaluator, sorted(evaluator, std::move(items), keys, flag(given[2])));
}

Value unique(Evaluator& evaluator, const Value& value, const Arguments& arguments) {
  const auto given = bind_arguments("unique", arguments, {"case_sensitive", "attribute"});
  std::unordered_set<std::string> seen;
  Values out;
  for (Value& item : iterate(evaluator.budget(), value)) {
    const Value key = follow(evaluator, item, given[1] ? *given[1] : Value());
    if (seen.insert(dict_key(evaluator.budget(), folded(evaluator, key, flag(given[0])))).second) out.push_back(std::move(item));
  }
  return make_iterator(evaluator, std::move(out));
}

Value map(Evaluator& evaluator, const Value& value, const Arguments& arguments) {
  if (!truth(value)) return make_iterator(evaluator, {});
  Values out;
  if (arguments.positional.empty() && arguments.find("attribute")) {
    const auto given = bind_arguments("map", arguments, {"attribute", "default"});
    for (Value& item : iterate(evaluator.budget(), value)) out.push_back(follow(evaluator, std::move(item), *given[0], given[1]));
    return make_iterator(evaluator, std::move(out));
  }
  if (arguments.positional.empty()) throw TemplateError("map: found no argument, expected a filter's name or attribute=");
  const std::string& filter = to_text(arguments.positional[0], "filter of map");
  Arguments rest = arguments;
  rest.positional.erase(rest.positional.begin());
  for (const Value& item : iterate(evaluator.budget(), value)) {
    evaluator.budget().spend_steps();
    out.push_back(apply_filter(evaluator, filter, item, rest));
  }
  return make_iterator(evaluator, std::move(out));
}

// The items for which the test, or their truth, is `wanted`.
Value choose(Evaluator& evaluator, const char* name, const Value& value, const Arguments& arguments, bool by_attribute,
             bool wanted) {
  if (!truth(value)) return make_iterator(evaluator, {});
  Arguments rest = arguments;
  const auto take = [&] {
    Value first = std::move(rest.positional.front());
    rest.positional.erase(rest.positional.begin());
    return first;
  };
  if (by_attribute && rest.positional.empty()) throw TemplateError(concat(name, ": found no argument, expected an attribute"));
  const Value path = by_attribute ? take() : Value();
  const bool has_test = !rest.positional.empty();
  const std::string test = has_test ? to_text(take(), "name of a test") : "";
  Values out;
  for (Value& item : iterate(evaluator.budget(), value)) {
    evaluator.budget().spend_steps();
    const Value subject = follow(evaluator, item, path);
    const bool holds = has_test ? apply_test(evaluator, test, subject, rest) : truth(subject);
    if (holds == wanted) out.push_back(std::move(item));
  }
  return make_iterator(evaluator, std::move(out));
}

Value join_items(Evaluator& evaluator, const Value& value, const Arguments& arguments) {
  const auto given = bind_arguments("join", arguments, {"d", "attribute"});
  Values items = iterate(evaluator.budget(), value);
  if (given[1]) {
    for (Value& item : items) item = follow(evaluator, std::move(item), *given[1]);
  }
  const std::string separator = given[0] ? to_string(evaluator.budget(), *given[0]) : "";
  return Value(join(evaluator.budget(), separator, items));
}

Value count(Evaluator&, const Value& value, const Arguments& arguments) {
  bind_arguments("length", arguments, {});
  const std::int64_t size = length(value);
  if (size < 0) throw TemplateError(concat("length: found ", type_name(value), ", expected text, a list or a dict"));
  return size;
}

Value first(Evaluator& evaluator, const Value& value, const Arguments& arguments) {
  bind_arguments("first", arguments, {});
  if (const Sequence* sequence = value.sequence()) {
    const std::size_t at = sequence->kind == Sequence::Kind::iterator ? sequence->next++ : 0;
    if (at < sequence->items.size()) return sequence->items[at];
    sequence->next = std::min(sequence->next, sequence->items.size());
    return Value::undefined("No first item, sequence was empty.");
  }
  const Values items = iterate(evaluator.budget(), value);
  return items.empty() ? Value::undefined("No first item, sequence was empty.") : items.front();
}

Value last(Evaluator& evaluator, const Value& value, const Arguments& arguments) {
  bind_arguments("last", arguments, {});
  if (value.sequence() && value.sequence()->kind == Sequence::Kind::iterator)
    throw TemplateError(concat("last: found ", type_name(value), ", expected a list (the filter list makes one)"));
  const Values items = iterate(evaluator.budget(), value);
  return items.empty() ? Value::undefined("No last item, sequence was empty.") : items.back();
}

Value list(Evaluator& evaluator, const Value& value, const Arguments& arguments) {
  bind_arguments("list", arguments, {});
  return make_list(evaluator, iterate(evaluator.budget(), value));
}

Value items(Evaluator& evaluator, const Value& value, const Arguments& arguments) {
  bind_arguments("items", arguments, {});
  Values out;
  if (!value.is_undefined() && !value.dict()) throw TemplateError(concat("items: found ", type_name(value), ", expected a dict"));
  if (value.dict()) {
    for (const auto& [key, member] : value.dict()->entries)
      out.push_back(make_sequence(evaluator.budget(), Sequence::Kind::tuple, {key, member}));
  }
  return make_iterator(evaluator, std::move(out));
}

Value reverse(Evaluator& evaluator, const Value& value, const Arguments& arguments) {
  bind_arguments("reverse", arguments, {});
  Values out = iterate(evaluator.budget(), value);
  std::reverse(out.begin(), out.end());
  if (value.string()) return Value(join(evaluator.budget(), "", out));
  const bool copies = value.is_undefined() || (value.sequence() && value.sequence()->kind == Sequence::Kind::iterator);
  return copies ? make_list(evaluator, std::move(out)) : make_iterator(evaluator, std::move(out));
}

Value extreme(Evaluator& evaluator, const char* name, const Value& value, const Arguments& arguments, bool largest) {
  const auto given = bind_arguments(name, arguments, {"case_sensitive", "attribute"});
  const Values all = iterate(evaluator.budget(), value);
  if (all.empty()) return Value::undefined("No aggregated item, sequence was empty.");
  const auto key = [&](const Value& item) {
    return folded(evaluator, follow(evaluator, item, given[1] ? *given[1] : Value()), flag(given[0]));
  };
  std::size_t best = 0;
  Value best_key = key(all[0]);
  for (std::size_t i = 1; i < all.size(); ++i) {
    Value other = key(all[i]);
    if (largest ? !less(evaluator.budget(), best_key, other) : !less(evaluator.budget(), other, best_key)) continue;
    best = i;
    best_key = std::move(other);
  }
  return all[best];
}

Value sum(Evaluator& evaluator, const Value& value, const Arguments& arguments) {
  const auto given = bind_arguments("sum", arguments, {"attribute", "start"});
  Value total = given[1] ? *given[1] : Value(std::int64_t{0});
  if (total.string()) throw TemplateError("sum: found text, expected numbers (the filter join joins text)");
  for (const Value& item : iterate(evaluator.budget(), value))
    total = operate(evaluator.budget(), Operator::add, total, follow(evaluator, item, given[0] ? *given[0] : Value()));
  return total;
}

constexpr std::pair<std::string_view, FilterFunction> kTable[] = {
    {"count", count},
    {"dictsort", dictsort},
    {"first", first},
    {"items", items},
    {"join", join_items},
    {"last", last},
    {"length", count},
    {"list", list},
    {"map", map},
    {"max", [](Evaluator& e, const Value& v, const Arguments& a) { return extreme(e, "max", v, a, true); }},
    {"min", [](Evaluator& e, const Value& v, const Arguments& a) { return extreme(e, "min", v, a, false); }},
    {"reject", [](Evaluator& e, const Value& v, const Arguments& a) { return choose(e, "reject", v, a, false, false); }},
    {"rejectattr", [](Evaluator& e, const Value& v, const Arguments& a) { return choose(e, "rejectattr", v, a, true, false); }},
    {"reverse", reverse},
    {"select", [](Evaluator& e, const Value& v, const Arguments& a) { return choose(e, "select", v, a, false, true); }},
    {"selectattr", [](Evaluator& e, const Value& v, const Arguments& a) { return choose(e, "selectattr", v, a, true, true); }},
    {"sort", sort},
    {"sum", sum},
    {"unique", unique}};

}  // namespace list_filters

FilterFunction find_list_filter(std::string_view name) {
  for (const auto& [known, function] : list_filters::kTable) {
    if (known == name) return function;
  }
  return nullptr;
}

}  // namespace molt::jinja
