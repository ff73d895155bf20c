// The functions that transformers gives to templates.
#include <ctime>

#include "base/error.h"
#include "text/chat_template/builtins.h"

namespace molt::jinja {
namespace functions {

constexpr std::int64_t kLongestRange = 100000;  // Jinja's own bound in a sandbox

Value range(Budget& budget, const Arguments& arguments) {
  const auto given = bind_arguments("range", arguments, {"start", "stop", "step"}, 1);
  const bool only_stop = !given[1];
  const std::int64_t start = only_stop ? 0 : to_integer(*given[0], "start of range");
  const std::int64_t stop = to_integer(only_stop ? *given[0] : *given[1], "end of range");
  const std::int64_t step = given[2] ? to_integer(*given[2], "step of range") : 1;
  if (step == 0) throw TemplateError("step of range: found 0, expected another number");
  Values items;
  for (std::int64_t i = start; step > 0 ? i < stop : i > stop;) {
    if (std::ssize(items) >= kLongestRange) throw TemplateError(concat("range: found more than ", kLongestRange, " numbers"));
    items.emplace_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  std::string name = concat("range(", start, ", ", stop, step == 1 ? ")" : concat(", ", step, ")"));
  return make_sequence(budget, Sequence::Kind::range, std::move(items), std::move(name));
}

// dict(pairs or a dict, name=value, …)
Value dict(Budget& budget, const std::string& name, const Arguments& arguments) {
  std::vector<std::pair<Value, Value>> entries;
  if (arguments.positional.size() > 1)
    throw TemplateError(concat(name, ": found several arguments without names, expected one at most"));
  for (const Value& from : arguments.positional) {
    require_defined(from);
    if (from.dict()) {
      budget.spend_bytes(from.dict()->entries.size() * 2 * sizeof(Value));
      entries = from.dict()->entries;
      continue;
    }
    for (const Value& pair : iterate(budget, from)) {
      Values both = iterate(budget, pair);
      if (both.size() != 2)
        throw TemplateError(concat(name, ": found an item of ", both.size(), " parts, expected key and value"));
      entries.emplace_back(std::move(both[0]), std::move(both[1]));
    }
  }
  for (const auto& [key, value] : arguments.named) entries.emplace_back(key, value);
  return make_dict(budget, std::move(entries));
}

Value name_space(Evaluator& evaluator, const Arguments& arguments) {
  const Value fields = dict(evaluator.budget(), "namespace", arguments);
  std::unordered_map<std::string, Value> named;
  for (const auto& [key, value] : fields.dict()->entries) {
    const std::string& name = to_text(key, "a field of namespace");
    if (name.starts_with('_')) throw TemplateError(concat("found the field ", name, ", expected one that does not begin with _"));
    named.emplace(name, value);
  }
  return evaluator.make_namespace(std::move(named));
}

Value strftime_now(Evaluator& evaluator, const Arguments& arguments) {
  const std::string& format = to_text(*bind_arguments("strftime_now", arguments, {"format"}, 1)[0], "format of strftime_now");
  if (format.empty()) return "";
  evaluator.budget().spend_bytes(64 * format.size() + 64);
  std::string text(64 * format.size() + 64, '\0');
  std::tm time{};
  const std::time_t now = evaluator.now();
  localtime_r(&now, &time);
  // A last character tells an empty result from one that does not fit.
  const std::size_t size = std::strftime(text.data(), text.size(), (format + ".").c_str(), &time);
  if (size == 0) throw TemplateError(concat("strftime_now: found the format ", format, ", expected a shorter result"));
  return Value(text.substr(0, size - 1));
}

Value raise_exception(Evaluator& evaluator, const Arguments& arguments) {
  const Value& message = *bind_arguments("raise_exception", arguments, {"message"}, 1)[0];
  throw TemplateError("the template refuses its input: " + to_string(evaluator.budget(), message));
}

}  // namespace functions

bool is_function(std::string_view name) {
  if (is_one_of(name, {"cycler", "joiner", "lipsum"}))
    throw TemplateError(concat("found the function ", name, ", which is not supported"));
  return is_one_of(name, {"range", "dict", "namespace", "strftime_now", "raise_exception"});
}

Value call_function(Evaluator& evaluator, const std::string& name, const Arguments& arguments) {
  if (name == "range") return functions::range(evaluator.budget(), arguments);
  if (name == "dict") return functions::dict(evaluator.budget(), name, arguments);
  if (name == "namespace") return functions::name_space(evaluator, arguments);
  if (name == "strftime_now") return functions::strftime_now(evaluator, arguments);
  return functions::raise_exception(evaluator, arguments);
}

}  // namespace molt::jinja
