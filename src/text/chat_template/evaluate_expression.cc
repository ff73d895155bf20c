#include <algorithm>

#include "base/error.h"
#include "text/chat_template/builtins.h"
#include "text/chat_template/evaluator.h"

namespace molt::jinja {
namespace evaluate_expression {

constexpr int kDeepest = 500;

}  // namespace evaluate_expression

Evaluator::Level::Level(Evaluator& evaluator) : depth_(evaluator.depth_) {
  if (depth_ >= evaluate_expression::kDeepest)
    throw TemplateError("found calls that are nested too deep (a macro that calls itself?)");
  ++depth_;
  evaluator.budget_.spend_steps();
}

Value Evaluator::evaluate(const Expression& expression) {
  const Level level(*this);
  at_ = expression.at;
  return std::visit([&](const auto& node) { return evaluate_one(node); }, expression.what);
}

Value Evaluator::evaluate_one(const Name& node) {
  if (const Value* value = scope_->find(node.name)) return *value;
  if (const Value* value = input_.find(node.name)) return *value;
  if (is_function(node.name)) return std::make_shared<const Callable>(Callable{.name = node.name});
  return Value::undefined(concat("'", node.name, "' is undefined"));
}

Value Evaluator::evaluate_one(const Items& node) {
  Values items;
  for (const auto& item : node.items) items.push_back(evaluate(*item));
  return make_sequence(budget_, node.kind, std::move(items));
}

Value Evaluator::evaluate_one(const Pairs& node) {
  std::vector<std::pair<Value, Value>> entries;
  for (const auto& [key, value] : node.pairs) {
    Value first = evaluate(*key);
    entries.emplace_back(std::move(first), evaluate(*value));
  }
  return make_dict(budget_, std::move(entries));
}

Value Evaluator::evaluate_one(const Negation& node) {
  const std::size_t at = at_;
  const Value value = evaluate(*node.value);
  at_ = at;
  if (node.sign == '!') return !truth(value);
  return negate(value, node.sign);
}

Value Evaluator::evaluate_one(const Chain& node) {
  Value value = evaluate(*node.first);
  for (const auto& link : node.links) {
    const Value right = evaluate(*link.right);
    at_ = link.at;
    budget_.spend_steps();
    value = operate(budget_, link.operation, value, right);
  }
  return value;
}

Value Evaluator::evaluate_one(const Comparisons& node) {
  Value left = evaluate(*node.first);
  for (const auto& link : node.links) {
    Value right = evaluate(*link.right);
    at_ = link.at;
    if (!compare(budget_, link.comparison, left, right)) return false;
    left = std::move(right);
  }
  return true;
}

Value Evaluator::evaluate_one(const Logic& node) {
  Value value;
  for (const auto& part : node.parts) {
    value = evaluate(*part);
    if (truth(value) != node.is_and) break;
  }
  return value;
}

Value Evaluator::evaluate_one(const Choice& node) {
  if (truth(evaluate(*node.condition))) return evaluate(*node.then);
  if (node.otherwise) return evaluate(*node.otherwise);
  return Value::undefined("the inline if-expression evaluated to false and no else section was defined");
}

Value Evaluator::evaluate_one(const Postfix& node) {
  return apply_all(evaluate(*node.base), node.steps);
}

Value Evaluator::apply_all(Value value, const std::vector<Step>& steps) {
  for (const Step& step : steps) value = apply(value, step);
  return value;
}

Value Evaluator::apply(const Value& value, const Step& step) {
  budget_.spend_steps();
  at_ = step.at;
  return std::visit([&](const auto& what) { return apply_one(value, what); }, step.what);
}

Value Evaluator::apply_one(const Value& value, const Attribute& step) {
  return attribute_of(budget_, value, step.name);
}

Value Evaluator::apply_one(const Value& value, const Subscript& step) {
  const std::size_t at = at_;
  const Value index = evaluate(*step.index);
  at_ = at;
  return item_of(budget_, value, index);
}

Value Evaluator::apply_one(const Value& value, const Slice& step) {
  const std::size_t at = at_;
  const auto part = [&](const ExpressionPtr& expression) { return expression ? evaluate(*expression) : Value(); };
  const Value start = part(step.start), stop = part(step.stop), stride = part(step.step);
  at_ = at;
  return slice_of(budget_, value, start, stop, stride);
}

Value Evaluator::apply_one(const Value& value, const Call& step) {
  const std::size_t at = at_;
  const Arguments arguments = evaluate(step.arguments);
  at_ = at;
  return call(value, arguments);
}

Value Evaluator::apply_one(const Value& value, const Filter& step) {
  const std::size_t at = at_;
  const Arguments arguments = evaluate(step.arguments);
  at_ = at;
  return apply_filter(*this, step.name, value, arguments);
}

Value Evaluator::apply_one(const Value& value, const Test& step) {
  const std::size_t at = at_;
  const Arguments arguments = evaluate(step.arguments);
  at_ = at;
  return apply_test(*this, step.name, value, arguments) != step.negated;
}

Arguments Evaluator::evaluate(const CallArguments& arguments) {
  Arguments out;
  for (const auto& argument : arguments.positional) out.positional.push_back(evaluate(*argument));
  if (arguments.more_positional) {
    for (Value& value : iterate(budget_, evaluate(*arguments.more_positional))) out.positional.push_back(std::move(value));
  }
  for (const auto& [name, argument] : arguments.named) out.named.emplace_back(name, evaluate(*argument));
  if (!arguments.more_named) return out;
  const Value more = evaluate(*arguments.more_named);
  if (!more.dict()) throw TemplateError(concat("behind **: found ", type_name(more), ", expected a dict"));
  for (const auto& [key, value] : more.dict()->entries) out.named.emplace_back(to_text(key, "a key behind **"), value);
  return out;
}

}  // namespace molt::jinja
