// What templates can do with values: operators, attributes, methods, functions, filters and tests, as Python and Jinja have them.
// All throw TemplateError for values of the wrong type.
#pragma once
#include <algorithm>
#include <initializer_list>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "text/chat_template/evaluator.h"

namespace molt::jinja {

template <class Names>
bool is_one_of(std::string_view name, const Names& names) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}
inline bool is_one_of(std::string_view name, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// A call's arguments under the names of a function's parameters; null where none was given. TemplateError for an argument that
// the function does not have and for fewer than `required`.
std::vector<const Value*> bind_arguments(std::string_view function, const Arguments& arguments,
                                         std::initializer_list<std::string_view> names, std::size_t required = 0);

Value negate(const Value& value, char sign);
Value operate(Budget& budget, Operator operation, const Value& left, const Value& right);
bool compare(Budget& budget, Comparison comparison, const Value& left, const Value& right);

// value.name and value[key]; undefined where there is none.
Value attribute_of(Budget& budget, const Value& value, const std::string& name);
Value item_of(Budget& budget, const Value& value, const Value& key);
// value[start:stop:step]; None where one is left out.
Value slice_of(Budget& budget, const Value& value, const Value& start, const Value& stop, const Value& step);

// Whether text has the method; TemplateError for one that Python has and this engine has not.
bool is_text_method(std::string_view name);
Value call_text_method(Budget& budget, const std::string& text, const std::string& name, const Arguments& arguments);
Value call_method(Budget& budget, const Callable& method, const Arguments& arguments);
bool is_function(std::string_view name);
Value call_function(Evaluator& evaluator, const std::string& name, const Arguments& arguments);
Value apply_filter(Evaluator& evaluator, const std::string& name, const Value& value, const Arguments& arguments);
bool is_filter(std::string_view name);
bool apply_test(Evaluator& evaluator, const std::string& name, const Value& value, const Arguments& arguments);

// "%s has %d" % (…) and "{} has {}".format(…).
std::string percent_format(Budget& budget, const std::string& format, const Value& values);
std::string brace_format(Budget& budget, const std::string& format, const Arguments& arguments);

// Pieces shared by methods and filters.
std::string replace_all(Budget& budget, std::string_view text, std::string_view from, std::string_view to, std::int64_t most);
std::string join(Budget& budget, std::string_view separator, const Values& items);

}  // namespace molt::jinja
