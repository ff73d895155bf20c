#include "text/chat_template/expression_parser.h"

#include <algorithm>

namespace molt::jinja {
namespace expression_parser {

using Kind = Token::Kind;

constexpr int kDeepest = 150;

// Operators from those that bind least to those that bind most; all of them from left to right, "**" too.
struct Sign {
  std::string_view sign;
  Operator operation;
  int level;
};
constexpr Sign kSigns[] = {{"+", Operator::add, 0},      {"-", Operator::subtract, 0}, {"~", Operator::concatenate, 1},
                           {"*", Operator::multiply, 2}, {"/", Operator::divide, 2},   {"//", Operator::floor_divide, 2},
                           {"%", Operator::modulo, 2},   {"**", Operator::power, 3}};
constexpr int kLevels = 4;

constexpr std::pair<std::string_view, Comparison> kComparisons[] = {
    {"==", Comparison::equal},      {"!=", Comparison::unequal}, {"<", Comparison::less},
    {"<=", Comparison::less_equal}, {">", Comparison::greater},  {">=", Comparison::greater_equal}};

const Sign* operator_of(const Token& token, int level) {
  const auto* found = std::find_if(std::begin(kSigns), std::end(kSigns),
                                   [&](const Sign& sign) { return sign.level == level && token.is_sign(sign.sign); });
  return found == std::end(kSigns) ? nullptr : found;
}

}  // namespace expression_parser

using namespace expression_parser;

Nesting::Nesting(ExpressionParser& parser) : parser_(parser) {
  if (parser.nesting_ >= kDeepest) parser.fail_here("expected less than ", kDeepest, " levels of nesting");
  ++parser.nesting_;
}

const Token& ExpressionParser::next() {
  const Token& token = peek();
  if (at_ + 1 < tokens_.size()) ++at_;
  return token;
}

std::string ExpressionParser::describe(const Token& token) {
  switch (token.kind) {
    case Kind::end:
      return "the end of the template";
    case Kind::data:
      return "text";
    case Kind::print_begin:
    case Kind::print_end:
      return token.kind == Kind::print_end ? "}}" : "{{";
    case Kind::block_begin:
    case Kind::block_end:
      return token.kind == Kind::block_end ? "%}" : "{%";
    case Kind::integer:
    case Kind::real:
      return "a number";
    case Kind::text:
      return "\"" + token.text + "\"";
    case Kind::name:
    case Kind::sign:
      return token.text;
  }
  return {};
}

const Token& ExpressionParser::expect(Kind kind, const char* what) {
  if (peek().kind != kind) fail_here("expected ", what);
  return next();
}

void ExpressionParser::expect_sign(std::string_view sign) {
  if (!skip_sign(sign)) fail_here("expected ", sign);
}

void ExpressionParser::expect_name(std::string_view name) {
  if (!skip_name(name)) fail_here("expected ", name);
}

bool ExpressionParser::skip_sign(std::string_view sign) {
  return peek().is_sign(sign) && (next(), true);
}

bool ExpressionParser::skip_name(std::string_view name) {
  return peek().is_name(name) && (next(), true);
}

ExpressionPtr ExpressionParser::parse_expression(bool with_choice) {
  const Nesting nesting(*this);
  return with_choice ? parse_choice() : parse_logic(false);
}

ExpressionPtr ExpressionParser::parse_tuple(bool with_choice, std::string_view end) {
  const std::size_t at = peek().at;
  Expressions items;
  bool is_tuple = false;
  while (true) {
    const Token& token = peek();
    if (token.kind == Kind::print_end || token.kind == Kind::block_end || token.is_sign(")") ||
        (!end.empty() && token.is_name(end)))
      break;
    items.push_back(parse_expression(with_choice));
    if (!skip_sign(",")) break;
    is_tuple = true;
  }
  if (is_tuple) return make(at, Items{Sequence::Kind::tuple, std::move(items)});
  if (items.empty()) fail_here("expected an expression");
  return std::move(items[0]);
}

ExpressionPtr ExpressionParser::parse_choice() {
  const std::size_t at = peek().at;
  ExpressionPtr then = parse_logic(false);
  if (!skip_name("if")) return then;
  ExpressionPtr condition = parse_logic(false);
  ExpressionPtr otherwise = skip_name("else") ? parse_expression() : nullptr;
  return make(at, Choice{std::move(condition), std::move(then), std::move(otherwise)});
}

ExpressionPtr ExpressionParser::parse_logic(bool is_and) {
  const std::size_t at = peek().at;
  Expressions parts;
  do parts.push_back(is_and ? parse_not() : parse_logic(true));
  while (skip_name(is_and ? "and" : "or"));
  return parts.size() == 1 ? std::move(parts[0]) : make(at, Logic{is_and, std::move(parts)});
}

ExpressionPtr ExpressionParser::parse_not() {
  const std::size_t at = peek().at;
  if (!skip_name("not")) return parse_comparisons();
  const Nesting nesting(*this);
  return make(at, Negation{'!', parse_not()});
}

ExpressionPtr ExpressionParser::parse_comparisons() {
  const std::size_t at = peek().at;
  ExpressionPtr first = parse_chain(0);
  std::vector<Comparisons::Link> links;
  while (true) {
    const Token& token = peek();
    const auto* found =
        std::find_if(std::begin(kComparisons), std::end(kComparisons), [&](const auto& row) { return token.is_sign(row.first); });
    Comparison comparison = Comparison::in;
    if (found != std::end(kComparisons)) {
      comparison = found->second;
    } else if (token.is_name("not") && peek(1).is_name("in")) {
      comparison = Comparison::not_in;
      next();
    } else if (!token.is_name("in")) {
      break;
    }
    next();
    links.push_back({token.at, comparison, parse_chain(0)});
  }
  return links.empty() ? std::move(first) : make(at, Comparisons{std::move(first), std::move(links)});
}

ExpressionPtr ExpressionParser::parse_chain(int level) {
  if (level == kLevels) return parse_unary();
  const std::size_t at = peek().at;
  ExpressionPtr first = parse_chain(level + 1);
  std::vector<Chain::Link> links;
  while (const Sign* found = operator_of(peek(), level)) {
    const std::size_t sign = next().at;
    links.push_back({sign, found->operation, parse_chain(level + 1)});
  }
  return links.empty() ? std::move(first) : make(at, Chain{std::move(first), std::move(links)});
}

ExpressionPtr ExpressionParser::parse_unary(bool with_filters) {
  const Token& token = peek();
  ExpressionPtr value;
  if (token.is_sign("-") || token.is_sign("+")) {
    const Nesting nesting(*this);
    next();
    value = make(token.at, Negation{token.text[0], parse_unary(false)});
  } else {
    value = parse_primary();
  }
  return parse_postfix(std::move(value), with_filters);
}

// Attributes, subscripts and calls; then, where asked for, filters, tests and calls of what they give.
ExpressionPtr ExpressionParser::parse_postfix(ExpressionPtr base, bool with_filters, bool with_attributes) {
  const std::size_t at = base->at;
  std::vector<Step> steps;
  while (true) {
    const Token& token = peek();
    if (with_attributes && token.is_sign(".")) {
      steps.push_back(parse_attribute());
    } else if (with_attributes && token.is_sign("[")) {
      steps.push_back(parse_subscript());
    } else if (token.is_sign("(")) {
      steps.push_back({token.at, Call{parse_arguments()}});
    } else if (with_filters && token.is_sign("|")) {
      next();
      steps.push_back(parse_filter());
      with_attributes = false;
    } else if (with_filters && token.is_name("is")) {
      steps.push_back(parse_test());
      with_attributes = false;
    } else {
      break;
    }
  }
  return steps.empty() ? std::move(base) : make(at, Postfix{std::move(base), std::move(steps)});
}

ExpressionPtr ExpressionParser::parse_primary() {
  const Token& token = peek();
  if (token.kind == Kind::name) return parse_name();
  if (token.is_sign("(")) return parse_parentheses();
  if (token.is_sign("[")) return parse_list();
  if (token.is_sign("{")) return parse_dict();
  if (token.kind == Kind::integer || token.kind == Kind::real) return make(token.at, Constant{next().number});
  if (token.kind != Kind::text) fail_here("expected an expression");
  std::string text;
  while (peek().kind == Kind::text) text += next().text;
  return make(token.at, Constant{std::move(text)});
}

ExpressionPtr ExpressionParser::parse_name() {
  const Token& token = next();
  const std::string& name = token.text;
  if (name == "true" || name == "True") return make(token.at, Constant{true});
  if (name == "false" || name == "False") return make(token.at, Constant{false});
  if (name == "none" || name == "None") return make(token.at, Constant{});
  names_used_.varargs |= name == "varargs";
  names_used_.kwargs |= name == "kwargs";
  names_used_.caller |= name == "caller";
  return make(token.at, Name{name});
}

ExpressionPtr ExpressionParser::parse_parentheses() {
  const std::size_t at = next().at;
  if (skip_sign(")")) return make(at, Items{Sequence::Kind::tuple, {}});
  ExpressionPtr inner = parse_tuple();
  expect_sign(")");
  return inner;
}

ExpressionPtr ExpressionParser::parse_list() {
  const std::size_t at = next().at;
  Expressions items;
  while (!skip_sign("]")) {
    if (!items.empty()) expect_sign(",");
    if (skip_sign("]")) break;
    items.push_back(parse_expression());
  }
  return make(at, Items{Sequence::Kind::list, std::move(items)});
}

ExpressionPtr ExpressionParser::parse_dict() {
  const std::size_t at = next().at;
  Pairs node;
  while (!skip_sign("}")) {
    if (!node.pairs.empty()) expect_sign(",");
    if (skip_sign("}")) break;
    ExpressionPtr key = parse_expression();
    expect_sign(":");
    node.pairs.emplace_back(std::move(key), parse_expression());
  }
  return make(at, std::move(node));
}

Step ExpressionParser::parse_attribute() {
  const std::size_t at = next().at;
  const Token& token = next();
  if (token.kind == Kind::name) return {token.at, Attribute{token.text}};
  if (token.kind != Kind::integer) fail(source_.place(token.at), ": found ", describe(token), ", expected a name or a number");
  return {at, Subscript{make(token.at, Constant{token.number})}};
}

Step ExpressionParser::parse_subscript() {
  const std::size_t at = next().at;
  ExpressionPtr parts[3];
  std::size_t count = 0;
  bool is_slice = false;
  while (!skip_sign("]")) {
    if (skip_sign(":")) {
      is_slice = true;
      if (++count > 2) fail_here("expected ]");
    } else if (!parts[count]) {
      parts[count] = parse_expression();
    } else {
      fail_here("expected ]");
    }
  }
  if (is_slice) return {at, Slice{std::move(parts[0]), std::move(parts[1]), std::move(parts[2])}};
  if (!parts[0]) fail_here("expected an index before it");
  return {at, Subscript{std::move(parts[0])}};
}

std::vector<Step> ExpressionParser::parse_filters(bool starts_inline) {
  std::vector<Step> filters;
  if (starts_inline) filters.push_back(parse_filter());
  while (skip_sign("|")) filters.push_back(parse_filter());
  return filters;
}

Step ExpressionParser::parse_filter() {
  const Token& name = expect(Kind::name, "the name of a filter");
  Filter filter{name.text, {}};
  if (peek().is_sign("(")) filter.arguments = parse_arguments();
  return {name.at, std::move(filter)};
}

Step ExpressionParser::parse_test() {
  next();
  const bool negated = skip_name("not");
  const Token& name = expect(Kind::name, "the name of a test");
  Test test{name.text, {}, negated};
  const Token& token = peek();
  const bool ends = token.is_name("else") || token.is_name("or") || token.is_name("and");
  const bool begins = token.kind == Kind::name || token.kind == Kind::text || token.kind == Kind::integer ||
                      token.kind == Kind::real || token.is_sign("[") || token.is_sign("{");
  if (token.is_sign("(")) {
    test.arguments = parse_arguments();
  } else if (begins && !ends) {
    if (token.is_name("is")) fail_here("expected no test behind a test");
    const Nesting nesting(*this);
    test.arguments.positional.push_back(parse_postfix(parse_primary(), false));
  }
  return {name.at, std::move(test)};
}

CallArguments ExpressionParser::parse_arguments() {
  expect_sign("(");
  CallArguments arguments;
  bool first = true;
  while (!skip_sign(")")) {
    if (!std::exchange(first, false)) expect_sign(",");
    if (skip_sign(")")) break;
    const bool is_named = peek().kind == Kind::name && peek(1).is_sign("=");
    const bool is_plain = !is_named && !peek().is_sign("*") && !peek().is_sign("**");
    if (arguments.more_named || (is_plain && (arguments.more_positional || !arguments.named.empty())))
      fail_here("expected plain arguments before named ones and those before **");
    if (skip_sign("*")) {
      if (arguments.more_positional) fail_here("expected one * at most");
      arguments.more_positional = parse_expression();
    } else if (skip_sign("**")) {
      arguments.more_named = parse_expression();
    } else if (is_named) {
      const std::string& name = next().text;
      next();
      arguments.named.emplace_back(name, parse_expression());
    } else {
      arguments.positional.push_back(parse_expression());
    }
  }
  return arguments;
}

Target ExpressionParser::parse_target(bool with_fields, std::string_view end) {
  Target tuple{.at = peek().at, .name = {}, .field = {}, .parts = {}, .is_tuple = false};
  while (true) {
    const Token& token = peek();
    if (token.kind == Kind::block_end || token.is_sign(")") || (!end.empty() && token.is_name(end))) break;
    tuple.parts.push_back(parse_one_target(with_fields));
    if (!skip_sign(",")) break;
    tuple.is_tuple = true;
  }
  if (tuple.parts.empty()) fail_here("expected a name to assign to");
  return tuple.is_tuple ? std::move(tuple) : Target(std::move(tuple.parts[0]));
}

Target ExpressionParser::parse_one_target(bool with_fields) {
  const Nesting nesting(*this);
  const std::size_t at = peek().at;
  if (skip_sign("(")) {
    Target inner = parse_target(with_fields, "");
    expect_sign(")");
    return inner;
  }
  const Token& token = expect(Kind::name, "a name to assign to");
  constexpr std::string_view constants[] = {"true", "false", "none", "True", "False", "None"};
  if (std::find(std::begin(constants), std::end(constants), token.text) != std::end(constants))
    fail(source_.place(at), ": found ", token.text, ", expected a name to assign to");
  Target target{.at = at, .name = token.text, .field = {}, .parts = {}, .is_tuple = false};
  if (with_fields && skip_sign(".")) target.field = expect(Kind::name, "the name of a field").text;
  return target;
}

}  // namespace molt::jinja
