// Runs a parsed template.
#pragma once
#include <ctime>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "text/chat_template/tree.h"
#include "text/chat_template/value.h"

namespace molt::jinja {

// Variables of a loop's turn, a macro's call or the whole template. What is not here is looked for outside.
class Scope {
 public:
  explicit Scope(Scope* parent) : parent_(parent) {}
  void set(std::string_view name, Value value) { variables_[name] = std::move(value); }
  const Value* find(std::string_view name) const;
  // A macro refers to it: it and what is around it must outlive the statement that made it.
  void keep();
  bool kept() const { return kept_; }

 private:
  Scope* parent_;
  bool kept_ = false;
  std::unordered_map<std::string_view, Value> variables_;  // names lie in the tree
};

class Evaluator {
 public:
  // `input` and the tree must outlive the evaluator; `now` is the time of strftime_now.
  Evaluator(const Dict& input, Budget& budget, std::time_t now);

  // TemplateError for what the template does wrong; place() then says where.
  std::string run(const Body& body);
  std::size_t place() const { return at_; }
  // Bytes of the text that stand in {% generation %}: begin and end. Inside macros and blocks that are captured, the beginning is
  // where the whole text had come to, as transformers counts it.
  const std::vector<std::pair<std::size_t, std::size_t>>& generated() const { return generated_; }

  Budget& budget() { return budget_; }
  std::time_t now() const { return now_; }
  Value call(const Value& function, const Arguments& arguments);
  Value make_namespace(std::unordered_map<std::string, Value> fields);

 private:
  enum class Flow { on, broken, continued };
  class Inner;
  // A level of recursion while it lives.
  class Level {
   public:
    explicit Level(Evaluator& evaluator);
    ~Level() { --depth_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    int& depth_;
  };

  Flow run_body(const Body& body);
  Flow run_in_scope(const Body& body);
  Flow run_one(std::size_t at, const Text& node);
  Flow run_one(std::size_t at, const Print& node);
  Flow run_one(std::size_t at, const Set& node);
  Flow run_one(std::size_t at, const SetBlock& node);
  Flow run_one(std::size_t at, const If& node);
  Flow run_one(std::size_t at, const For& node);
  Flow run_one(std::size_t at, const With& node);
  Flow run_one(std::size_t at, const Macro& node);
  Flow run_one(std::size_t at, const CallBlock& node);
  Flow run_one(std::size_t at, const FilterBlock& node);
  Flow run_one(std::size_t at, const Generation& node);
  Flow run_one(std::size_t at, const Break& node);
  Flow run_one(std::size_t at, const Continue& node);

  void print(std::string_view text);
  // The text that the body prints; `flow`, if asked for, says how it ended.
  std::string capture(const Body& body, Flow* flow = nullptr);
  void assign(const Target& target, const Value& value);
  Values items_of(const For& node);
  Value make_macro(const Macro& macro);
  Value call_macro(const Callable& callable, const Arguments& arguments);
  void bind(const Macro& macro, const Arguments& arguments);

  Value evaluate(const Expression& expression);
  Value evaluate_one(const Constant& node) { return node.value; }
  Value evaluate_one(const Name& node);
  Value evaluate_one(const Items& node);
  Value evaluate_one(const Pairs& node);
  Value evaluate_one(const Negation& node);
  Value evaluate_one(const Chain& node);
  Value evaluate_one(const Comparisons& node);
  Value evaluate_one(const Logic& node);
  Value evaluate_one(const Choice& node);
  Value evaluate_one(const Postfix& node);

  Value apply(const Value& value, const Step& step);
  Value apply_all(Value value, const std::vector<Step>& steps);
  Value apply_one(const Value& value, const Attribute& step);
  Value apply_one(const Value& value, const Subscript& step);
  Value apply_one(const Value& value, const Slice& step);
  Value apply_one(const Value& value, const Call& step);
  Value apply_one(const Value& value, const Filter& step);
  Value apply_one(const Value& value, const Test& step);
  Arguments evaluate(const CallArguments& arguments);

  const Dict& input_;
  Budget& budget_;
  std::time_t now_;
  std::size_t at_ = 0;
  int depth_ = 0;
  Scope* scope_ = nullptr;
  std::deque<std::unique_ptr<Scope>> kept_scopes_;
  std::deque<Namespace> namespaces_;
  std::string text_;
  std::string* out_ = &text_;
  std::vector<std::pair<std::size_t, std::size_t>> generated_;
};

}  // namespace molt::jinja
