// Attributes of values, and the methods of lists, dicts and loops.
#include <algorithm>

#include "base/error.h"
#include "text/chat_template/builtins.h"

namespace molt::jinja {
namespace methods {

constexpr std::string_view kDictMethods[] = {"get", "items", "keys", "values", "copy"};
constexpr std::string_view kDictChanges[] = {"clear", "pop", "popitem", "setdefault", "update"};
constexpr std::string_view kListMethods[] = {"index", "count", "copy"};
constexpr std::string_view kListChanges[] = {"append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove"};

// transformers renders in a sandbox in which lists and dicts do not change.
Value unsafe(std::string_view name, const Value& value) {
  return Value::undefined(concat("access to attribute '", name, "' of a ", type_name(value), " is unsafe: it would change it"));
}

Value loop_attribute(const Value& value, std::string_view name) {
  const Loop& loop = *value.loop();
  const auto index = static_cast<std::int64_t>(loop.index0), length = std::ssize(loop.items);
  if (name == "index") return index + 1;
  if (name == "index0") return index;
  if (name == "first") return index == 0;
  if (name == "last") return index + 1 >= length;
  if (name == "length") return length;
  if (name == "revindex") return length - index;
  if (name == "revindex0") return length - index - 1;
  if (name == "depth") return std::int64_t{1};
  if (name == "depth0") return std::int64_t{0};
  if (name == "previtem") return index > 0 ? loop.items[loop.index0 - 1] : Value::undefined("there is no previous item");
  if (name == "nextitem") return index + 1 < length ? loop.items[loop.index0 + 1] : Value::undefined("there is no next item");
  if (name == "cycle") return make_method(value, name);
  if (name == "changed") throw TemplateError("found loop.changed, which is not supported");
  return Value::undefined(concat("loop has no attribute '", name, "'"));
}

Value call_dict(Budget& budget, const Value& value, const std::string& name, const Arguments& arguments) {
  const Dict& dict = *value.dict();
  if (name == "get") {
    const auto given = bind_arguments(name, arguments, {"key", "default"}, 1);
    const Value* found = find(budget, dict, *given[0]);
    return found ? *found : given[1] ? *given[1] : Value();
  }
  bind_arguments(name, arguments, {});
  if (name == "copy") return value;
  Values items;
  for (const auto& [key, member] : dict.entries) {
    if (name == "items") {
      items.push_back(make_sequence(budget, Sequence::Kind::tuple, {key, member}));
    } else {
      items.push_back(name == "keys" ? key : member);
    }
  }
  return make_sequence(budget, Sequence::Kind::view, std::move(items), "dict_" + name);
}

Value call_sequence(Budget& budget, const Value& value, const std::string& name, const Arguments& arguments) {
  if (name == "copy") return value;
  const Value& wanted = *bind_arguments(name, arguments, {"value"}, 1)[0];
  const Values& items = value.sequence()->items;
  const auto is_it = [&](const Value& item) { return equal(budget, item, wanted); };
  if (name == "count") return static_cast<std::int64_t>(std::count_if(items.begin(), items.end(), is_it));
  const auto found = std::find_if(items.begin(), items.end(), is_it);
  if (found == items.end()) throw TemplateError("index: found no such item in the list");
  return static_cast<std::int64_t>(found - items.begin());
}

Value cycle(const Loop& loop, const Arguments& arguments) {
  if (arguments.positional.empty()) throw TemplateError("loop.cycle: found no values, expected at least one");
  return arguments.positional[loop.index0 % arguments.positional.size()];
}
}  // namespace methods

using namespace methods;

std::vector<const Value*> bind_arguments(std::string_view function, const Arguments& arguments,
                                         std::initializer_list<std::string_view> names, std::size_t required) {
  const auto& given = arguments.positional;
  if (given.size() > names.size())
    throw TemplateError(concat(function, ": found ", given.size(), " arguments, expected ", names.size(), " at most"));
  std::vector<const Value*> bound(names.size(), nullptr);
  for (std::size_t i = 0; i < given.size(); ++i) bound[i] = &given[i];
  for (const auto& [name, value] : arguments.named) {
    const auto index = static_cast<std::size_t>(std::find(names.begin(), names.end(), name) - names.begin());
    if (index == names.size()) throw TemplateError(concat(function, ": found the argument ", name, ", which it does not have"));
    if (bound[index]) throw TemplateError(concat(function, ": found the argument ", name, " twice"));
    bound[index] = &value;
  }
  for (std::size_t i = 0; i < required; ++i) {
    if (!bound[i]) throw TemplateError(concat(function, ": found no argument ", *(names.begin() + i)));
  }
  return bound;
}

// As Jinja looks: what Python's type has, then the item of that name.
Value attribute_of(Budget& budget, const Value& value, const std::string& name) {
  require_defined(value);
  const Sequence* sequence = value.sequence();
  if (value.string()) {
    if (is_text_method(name)) return make_method(value, name);
  } else if (value.dict()) {
    if (is_one_of(name, kDictMethods)) return make_method(value, name);
    if (is_one_of(name, kDictChanges)) return unsafe(name, value);
    if (const Value* found = value.dict()->find(name)) return *found;
  } else if (sequence && sequence->kind <= Sequence::Kind::range) {
    const bool is_list = sequence->kind == Sequence::Kind::list;
    if (is_one_of(name, kListMethods) && (is_list || name != "copy")) return make_method(value, name);
    if (is_list && is_one_of(name, kListChanges)) return unsafe(name, value);
  } else if (const Namespace* fields = value.name_space()) {
    const auto found = fields->fields.find(name);
    if (found != fields->fields.end()) return found->second;
  } else if (value.loop()) {
    return loop_attribute(value, name);
  }
  budget.spend_bytes(name.size());
  return Value::undefined(concat("'", type_name(value), " object' has no attribute '", name, "'"));
}

Value call_method(Budget& budget, const Callable& method, const Arguments& arguments) {
  const Value& receiver = method.receiver;
  if (receiver.string()) return call_text_method(budget, *receiver.string(), method.name, arguments);
  if (receiver.dict()) return call_dict(budget, receiver, method.name, arguments);
  if (receiver.sequence()) return call_sequence(budget, receiver, method.name, arguments);
  return cycle(*receiver.loop(), arguments);
}

}  // namespace molt::jinja
