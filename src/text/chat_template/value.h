// The values that a template computes with: Python's, as far as templates see them.
#pragma once
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

namespace molt::jinja {

// What is wrong with the template or its input; the evaluator adds the place and makes it a UserError.
class TemplateError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// What a template may spend. Both counts only fall: what a template has made and dropped counts as well.
class Budget {
 public:
  Budget(std::int64_t steps, std::int64_t bytes) : steps_(steps), bytes_(bytes) {}
  // TemplateError when they are spent.
  void spend_steps(std::uint64_t count = 1);
  // Before memory is taken. Reading or writing that much is work as well.
  void spend_bytes(std::uint64_t count);

 private:
  std::int64_t steps_, bytes_;
};

class Value;
struct Sequence;
struct Dict;
struct Namespace;
struct Callable;
struct Loop;

struct Undefined {
  std::shared_ptr<const std::string> why;  // "'tools' is undefined": what an error says when it is used
};
struct None {};

// Immutable except for namespaces and iterators, and cheap to copy. Namespaces belong to the run of the template, so that values
// make no cycles.
class Value {
 public:
  using Data = std::variant<Undefined, None, bool, std::int64_t, double, std::shared_ptr<const std::string>,
                            std::shared_ptr<const Sequence>, std::shared_ptr<const Dict>, Namespace*,
                            std::shared_ptr<const Callable>, std::shared_ptr<Loop>>;

  Value() : data_(None{}) {}
  Value(bool value) : data_(value) {}
  Value(std::int64_t value) : data_(value) {}
  Value(double value) : data_(value) {}
  Value(std::string value) : data_(std::make_shared<const std::string>(std::move(value))) {}
  Value(std::string_view value) : Value(std::string(value)) {}
  Value(const char* value) : Value(std::string(value)) {}
  template <class T>
  Value(std::shared_ptr<T> value) : data_(std::move(value)) {}
  Value(Namespace* value) : data_(value) {}
  static Value undefined(std::string why);

  const Data& data() const { return data_; }
  bool is_undefined() const { return std::holds_alternative<Undefined>(data_); }
  bool is_none() const { return std::holds_alternative<None>(data_); }
  // Null where the value is of another type.
  const bool* boolean() const { return std::get_if<bool>(&data_); }
  const std::int64_t* integer() const { return std::get_if<std::int64_t>(&data_); }
  const double* real() const { return std::get_if<double>(&data_); }
  const std::string* string() const { return shared<const std::string>(); }
  const Sequence* sequence() const { return shared<const Sequence>(); }
  const Dict* dict() const { return shared<const Dict>(); }
  const Callable* callable() const { return shared<const Callable>(); }
  Loop* loop() const { return shared<Loop>(); }
  Namespace* name_space() const {
    const auto* found = std::get_if<Namespace*>(&data_);
    return found ? *found : nullptr;
  }

 private:
  template <class T>
  T* shared() const {
    const auto* found = std::get_if<std::shared_ptr<T>>(&data_);
    return found ? found->get() : nullptr;
  }

  Data data_;
};

using Values = std::vector<Value>;

struct Sequence {
  enum class Kind { list, tuple, range, view, iterator };
  Kind kind;
  Values items;
  int depth;                     // of nesting: 1 without sequences or dicts inside
  std::string name = {};         // how a range ("range(0, 3)") or a view ("dict_items") prints
  mutable std::size_t next = 0;  // items that an iterator has given

  bool indexable() const { return kind <= Kind::range; }
};

// In the order of insertion.
struct Dict {
  std::vector<std::pair<Value, Value>> entries;
  std::unordered_map<std::string, std::size_t> index;  // by dict_key()
  int depth = 1;

  const Value* find(std::string_view key) const;
};

struct Namespace {
  std::unordered_map<std::string, Value> fields;
};

// The arguments of a call, filter or test.
struct Arguments {
  Values positional;
  std::vector<std::pair<std::string, Value>> named;

  const Value* find(std::string_view name) const;
};

struct Macro;
class Scope;

struct Callable {
  std::string name;
  Value receiver = {};     // of a method
  bool is_method = false;  // or a function of the environment, unless it is a macro
  const Macro* macro = nullptr;
  Scope* scope = nullptr;  // where the macro stands
};

// What `loop` is inside a for.
struct Loop {
  Values items;
  std::size_t index0 = 0;
};

// Makers that count what they take. Nesting deeper than 500 is a TemplateError.
Value make_sequence(Budget& budget, Sequence::Kind kind, Values items, std::string name = {});
Value make_dict(Budget& budget, std::vector<std::pair<Value, Value>> entries);
Value make_string(Budget& budget, std::string text);
Value make_method(const Value& receiver, std::string_view name);

// What names the key in a dict's index: equal keys give equal texts. TemplateError for keys that cannot be hashed.
std::string dict_key(Budget& budget, const Value& key);
const Value* find(Budget& budget, const Dict& dict, const Value& key);

// "str", "int", "list": as Python names the type.
const char* type_name(const Value& value);
// TemplateError where the value is undefined.
void require_defined(const Value& value);

bool truth(const Value& value);
bool equal(Budget& budget, const Value& left, const Value& right);
// left < right; TemplateError for types that have no order.
bool less(Budget& budget, const Value& left, const Value& right);
bool contains(Budget& budget, const Value& container, const Value& item);
// len(): characters of a string. -1 where the value has no length.
std::int64_t length(const Value& value);
// What a for goes through: items, keys of a dict, characters. An iterator is used up.
Values iterate(Budget& budget, const Value& value);
bool iterable(const Value& value);

// value as an index, a count or a width; TemplateError names `what`.
std::int64_t to_integer(const Value& value, const char* what);
// value as text that must be one.
const std::string& to_text(const Value& value, const char* what);
// Numbers, with booleans as 0 and 1; false for other values.
bool is_number(const Value& value);
bool as_integer(const Value& value, std::int64_t& out);
bool as_real(const Value& value, double& out);

// str(), repr(), json.dumps().
std::string to_string(Budget& budget, const Value& value);
std::string to_repr(Budget& budget, const Value& value);
std::string real_to_string(double value);
struct JsonStyle {
  std::string item_separator = ", ", key_separator = ": ", indent = {};
  bool indented = false, ascii = false, sorted = false;
};
std::string to_json(Budget& budget, const Value& value, const JsonStyle& style);

}  // namespace molt::jinja
