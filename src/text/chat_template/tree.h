// A parsed template. Chains (a + b - c, a.b[c]|d) are lists, so that a tree is no deeper than its source is nested.
#pragma once
#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "text/chat_template/value.h"

namespace molt::jinja {

struct Expression;
struct Statement;
using ExpressionPtr = std::unique_ptr<const Expression>;
using Expressions = std::vector<ExpressionPtr>;
using Body = std::vector<Statement>;

struct CallArguments {
  Expressions positional;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
  ExpressionPtr more_positional, more_named;  // *list, **dict; may be null
};

struct Constant {
  Value value;
};
struct Name {
  std::string name;
};
struct Items {  // [a, b] or (a, b)
  Sequence::Kind kind;
  Expressions items;
};
struct Pairs {  // {a: b}
  std::vector<std::pair<ExpressionPtr, ExpressionPtr>> pairs;
};
struct Negation {  // not a, -a, +a
  char sign;       // '!', '-', '+'
  ExpressionPtr value;
};
enum class Operator { add, subtract, multiply, divide, floor_divide, modulo, power, concatenate };
struct Chain {  // a + b - c, from left to right
  struct Link {
    std::size_t at;
    Operator operation;
    ExpressionPtr right;
  };
  ExpressionPtr first;
  std::vector<Link> links;
};
enum class Comparison { equal, unequal, less, less_equal, greater, greater_equal, in, not_in };
struct Comparisons {  // a < b <= c: every neighbouring pair
  struct Link {
    std::size_t at;
    Comparison comparison;
    ExpressionPtr right;
  };
  ExpressionPtr first;
  std::vector<Link> links;
};
struct Logic {  // a and b and c, a or b or c: the value that decides
  bool is_and;
  Expressions parts;
};
struct Choice {                              // a if b else c
  ExpressionPtr condition, then, otherwise;  // `otherwise` may be null
};
// What can stand behind a value.
struct Attribute {
  std::string name;
};
struct Subscript {
  ExpressionPtr index;
};
struct Slice {
  ExpressionPtr start, stop, step;  // each may be null
};
struct Call {
  CallArguments arguments;
};
struct Filter {
  std::string name;
  CallArguments arguments;
};
struct Test {
  std::string name;
  CallArguments arguments;
  bool negated;
};
struct Step {
  std::size_t at;
  std::variant<Attribute, Subscript, Slice, Call, Filter, Test> what;
};
struct Postfix {  // a.b[c](d)|e is f
  ExpressionPtr base;
  std::vector<Step> steps;
};

struct Expression {
  std::size_t at;
  std::variant<Constant, Name, Items, Pairs, Negation, Chain, Comparisons, Logic, Choice, Postfix> what;
};

// What a set, a for or a with assigns to: a name, a namespace's field, or several in a tuple.
struct Target {
  std::size_t at;
  std::string name, field;  // `field` is empty for plain names
  std::vector<Target> parts;
  bool is_tuple = false;
};

struct Text {
  std::string text;
};
struct Print {
  ExpressionPtr value;
};
struct Set {
  Target target;
  ExpressionPtr value;
};
struct SetBlock {
  Target target;
  std::vector<Step> filters;
  Body body;
};
struct If {
  std::vector<std::pair<ExpressionPtr, Body>> branches;
  Body otherwise;
};
struct For {
  Target target;
  ExpressionPtr items, condition;  // `condition` may be null
  Body body, otherwise;
};
struct With {
  std::vector<std::pair<Target, ExpressionPtr>> variables;
  Body body;
};
struct Macro {
  struct Parameter {
    std::string name;
    ExpressionPtr fallback;  // may be null
  };
  std::string name;
  std::vector<Parameter> parameters;
  Body body;
  bool uses_varargs = false, uses_kwargs = false, uses_caller = false;
};
struct CallBlock {  // a macro is called with the body as `caller`
  Macro caller;
  ExpressionPtr call;
};
struct FilterBlock {
  std::vector<Step> filters;
  Body body;
};
struct Generation {  // what an assistant wrote
  Body body;
};
struct Break {};
struct Continue {};

struct Statement {
  std::size_t at;
  std::variant<Text, Print, Set, SetBlock, If, For, With, Macro, CallBlock, FilterBlock, Generation, Break, Continue> what;
};

}  // namespace molt::jinja
