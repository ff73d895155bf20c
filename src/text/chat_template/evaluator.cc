// Statements, scopes and macros. Expressions are in evaluate_expression.cc.
#include "text/chat_template/evaluator.h"

#include <algorithm>

#include "base/error.h"
#include "text/chat_template/builtins.h"

namespace molt::jinja {
const Value* Scope::find(std::string_view name) const {
  for (const Scope* scope = this; scope; scope = scope->parent_) {
    const auto found = scope->variables_.find(name);
    if (found != scope->variables_.end()) return &found->second;
  }
  return nullptr;
}

void Scope::keep() {
  for (Scope* scope = this; scope && !scope->kept_; scope = scope->parent_) scope->kept_ = true;
}

// A scope of its own inside `parent` while it lives.
class Evaluator::Inner {
 public:
  Inner(Evaluator& evaluator, Scope* parent)
      : evaluator_(evaluator), outer_(evaluator.scope_), scope_(std::make_unique<Scope>(parent)) {
    evaluator.scope_ = scope_.get();
  }
  ~Inner() {
    evaluator_.scope_ = outer_;
    if (scope_->kept()) evaluator_.kept_scopes_.push_back(std::move(scope_));
  }
  Inner(const Inner&) = delete;
  Inner& operator=(const Inner&) = delete;

 private:
  Evaluator& evaluator_;
  Scope* outer_;
  std::unique_ptr<Scope> scope_;
};

Evaluator::Evaluator(const Dict& input, Budget& budget, std::time_t now) : input_(input), budget_(budget), now_(now) {}

std::string Evaluator::run(const Body& body) {
  run_in_scope(body);
  return std::move(text_);
}

Evaluator::Flow Evaluator::run_body(const Body& body) {
  const Level level(*this);
  for (const Statement& statement : body) {
    at_ = statement.at;
    budget_.spend_steps();
    const Flow flow = std::visit([&](const auto& node) { return run_one(statement.at, node); }, statement.what);
    if (flow != Flow::on) return flow;
  }
  return Flow::on;
}

Evaluator::Flow Evaluator::run_in_scope(const Body& body) {
  const Inner inner(*this, scope_);
  return run_body(body);
}

void Evaluator::print(std::string_view text) {
  budget_.spend_bytes(text.size());
  *out_ += text;
}

std::string Evaluator::capture(const Body& body, Flow* flow) {
  std::string text;
  std::string* const outer = std::exchange(out_, &text);
  const Flow end = run_in_scope(body);
  out_ = outer;
  if (flow) *flow = end;
  return text;
}

Evaluator::Flow Evaluator::run_one(std::size_t, const Text& node) {
  print(node.text);
  return Flow::on;
}

Evaluator::Flow Evaluator::run_one(std::size_t at, const Print& node) {
  const Value value = evaluate(*node.value);
  at_ = at;
  print(to_string(budget_, value));
  return Flow::on;
}

Evaluator::Flow Evaluator::run_one(std::size_t, const Set& node) {
  assign(node.target, evaluate(*node.value));
  return Flow::on;
}

Evaluator::Flow Evaluator::run_one(std::size_t, const SetBlock& node) {
  Flow flow = Flow::on;
  std::string text = capture(node.body, &flow);
  if (flow == Flow::on) assign(node.target, apply_all(Value(std::move(text)), node.filters));
  return flow;
}

Evaluator::Flow Evaluator::run_one(std::size_t, const If& node) {
  for (const auto& [condition, body] : node.branches) {
    if (truth(evaluate(*condition))) return run_body(body);
  }
  return run_body(node.otherwise);
}

Values Evaluator::items_of(const For& node) {
  const Value all = evaluate(*node.items);
  at_ = node.items->at;
  Values items = iterate(budget_, all);
  if (!node.condition) return items;
  Values chosen;
  for (Value& item : items) {
    const Inner inner(*this, scope_);
    assign(node.target, item);
    if (truth(evaluate(*node.condition))) chosen.push_back(std::move(item));
  }
  return chosen;
}

// As Jinja does it, `else` runs when no turn came to the body's end: after a break in the first turn, too.
Evaluator::Flow Evaluator::run_one(std::size_t, const For& node) {
  const auto loop = std::make_shared<Loop>();
  loop->items = items_of(node);
  bool completed = false;
  for (; loop->index0 < loop->items.size(); ++loop->index0) {
    const Inner inner(*this, scope_);
    scope_->set("loop", loop);
    assign(node.target, loop->items[loop->index0]);
    const Flow flow = run_body(node.body);
    if (flow == Flow::broken) break;
    completed = completed || flow == Flow::on;
  }
  return completed ? Flow::on : run_in_scope(node.otherwise);
}

Evaluator::Flow Evaluator::run_one(std::size_t, const With& node) {
  Values values;
  for (const auto& [target, value] : node.variables) values.push_back(evaluate(*value));
  const Inner inner(*this, scope_);
  for (std::size_t i = 0; i < values.size(); ++i) assign(node.variables[i].first, values[i]);
  return run_body(node.body);
}

Evaluator::Flow Evaluator::run_one(std::size_t, const Macro& node) {
  scope_->set(node.name, make_macro(node));
  return Flow::on;
}

Evaluator::Flow Evaluator::run_one(std::size_t at, const CallBlock& node) {
  const auto& call = std::get<Postfix>(node.call->what);
  Value function = evaluate(*call.base);
  for (std::size_t i = 0; i + 1 < call.steps.size(); ++i) function = apply(function, call.steps[i]);
  Arguments arguments = evaluate(std::get<Call>(call.steps.back().what).arguments);
  arguments.named.emplace_back("caller", make_macro(node.caller));
  at_ = at;
  print(to_string(budget_, this->call(function, arguments)));
  return Flow::on;
}

Evaluator::Flow Evaluator::run_one(std::size_t, const FilterBlock& node) {
  Flow flow = Flow::on;
  std::string text = capture(node.body, &flow);
  if (flow == Flow::on) print(to_string(budget_, apply_all(Value(std::move(text)), node.filters)));
  return flow;
}

Evaluator::Flow Evaluator::run_one(std::size_t, const Generation& node) {
  const std::string text = capture(node.body);
  generated_.emplace_back(text_.size(), text_.size() + text.size());
  print(text);
  return Flow::on;
}

Evaluator::Flow Evaluator::run_one(std::size_t, const Break&) {
  return Flow::broken;
}

Evaluator::Flow Evaluator::run_one(std::size_t, const Continue&) {
  return Flow::continued;
}

void Evaluator::assign(const Target& target, const Value& value) {
  if (!target.is_tuple) {
    if (target.field.empty()) return scope_->set(target.name, value);
    const Value* owner = scope_->find(target.name);
    at_ = target.at;
    if (!owner || !owner->name_space())
      throw TemplateError(concat("found ", target.name, ".", target.field, " to assign to, expected a field of a namespace"));
    if (target.field.starts_with('_'))
      throw TemplateError(concat("found the field ", target.field, ", expected one that does not begin with _"));
    owner->name_space()->fields[target.field] = value;
    return;
  }
  at_ = target.at;
  if (!iterable(value))
    throw TemplateError(concat("found ", type_name(value), " for ", target.parts.size(), " names, expected a list"));
  const Values items = iterate(budget_, value);
  if (items.size() != target.parts.size())
    throw TemplateError(concat("found ", items.size(), " items for ", target.parts.size(), " names"));
  for (std::size_t i = 0; i < items.size(); ++i) assign(target.parts[i], items[i]);
}

Value Evaluator::make_namespace(std::unordered_map<std::string, Value> fields) {
  budget_.spend_bytes(sizeof(Namespace) + fields.size() * sizeof(Value));
  return &namespaces_.emplace_back(Namespace{std::move(fields)});
}

Value Evaluator::make_macro(const Macro& macro) {
  budget_.spend_bytes(sizeof(Callable) + sizeof(Scope));
  scope_->keep();
  return std::make_shared<const Callable>(Callable{.name = macro.name, .macro = &macro, .scope = scope_});
}

Value Evaluator::call(const Value& function, const Arguments& arguments) {
  const Level level(*this);
  require_defined(function);
  const Callable* callable = function.callable();
  if (!callable) throw TemplateError(concat("found a call of ", type_name(function), ", expected a function or macro"));
  if (callable->macro) return call_macro(*callable, arguments);
  return callable->is_method ? call_method(budget_, *callable, arguments) : call_function(*this, callable->name, arguments);
}

Value Evaluator::call_macro(const Callable& callable, const Arguments& arguments) {
  const std::size_t at = at_;
  const Inner inner(*this, callable.scope);
  bind(*callable.macro, arguments);
  std::string text;
  std::string* const outer = std::exchange(out_, &text);
  run_body(callable.macro->body);
  out_ = outer;
  at_ = at;
  return make_string(budget_, std::move(text));
}

// Parameters become variables of the scope, which is the call's own.
void Evaluator::bind(const Macro& macro, const Arguments& arguments) {
  const auto& given = arguments.positional;
  const auto& named = arguments.named;
  std::vector<bool> taken(named.size());
  const auto take = [&](std::string_view name) -> const Value* {
    for (std::size_t i = 0; i < named.size(); ++i) {
      if (named[i].first != name) continue;
      taken[i] = true;
      return &named[i].second;
    }
    return nullptr;
  };
  bool has_caller = false;
  for (std::size_t i = 0; i < macro.parameters.size(); ++i) {
    const auto& [name, fallback] = macro.parameters[i];
    has_caller = has_caller || name == "caller";
    if (const Value* value = i < given.size() ? &given[i] : take(name)) {
      scope_->set(name, *value);
    } else {
      scope_->set(name, fallback ? evaluate(*fallback) : Value::undefined(concat("parameter '", name, "' was not provided")));
    }
  }
  if (macro.uses_caller && !has_caller) {
    const Value* caller = take("caller");
    scope_->set("caller", caller ? *caller : Value::undefined("No caller defined"));
  }
  std::vector<std::pair<Value, Value>> rest;
  for (std::size_t i = 0; i < named.size(); ++i) {
    if (taken[i]) continue;
    if (!macro.uses_kwargs)
      throw TemplateError(concat("macro ", macro.name, ": found the argument ", named[i].first, ", which it does not have"));
    rest.emplace_back(named[i].first, named[i].second);
  }
  if (macro.uses_kwargs) scope_->set("kwargs", make_dict(budget_, std::move(rest)));
  const std::size_t used = std::min(given.size(), macro.parameters.size());
  if (macro.uses_varargs) {
    scope_->set("varargs", make_sequence(budget_, Sequence::Kind::tuple,
                                         Values(given.begin() + static_cast<std::ptrdiff_t>(used), given.end())));
  } else if (given.size() > used) {
    throw TemplateError(concat("macro ", macro.name, ": found ", given.size(), " arguments, expected ", used, " at most"));
  }
}

}  // namespace molt::jinja
