#include <array>
#include <charconv>
#include <utility>

#include "evaluate/answer/expression.h"

namespace molt::answer {
namespace parsing {

using Op = Expression::Op;

constexpr int kDeepest = 64;

struct NoExpression {};

ExpressionPointer make(Op op, std::vector<ExpressionPointer> parts) {
  return std::make_shared<Expression>(Expression{op, 0, {}, std::move(parts)});
}
ExpressionPointer make_number(long double number) {
  return std::make_shared<Expression>(Expression{Op::number, number});
}
ExpressionPointer make_symbol(std::string name) {
  return std::make_shared<Expression>(Expression{Op::symbol, 0, std::move(name)});
}
ExpressionPointer call(std::string name, std::vector<ExpressionPointer> parts) {
  return std::make_shared<Expression>(Expression{Op::function, 0, std::move(name), std::move(parts)});
}

long double to_number(const std::string& digits) {
  long double value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc{} || end != digits.data() + digits.size()) throw NoExpression();
  return value;
}

bool whole(const Token& token) {
  return token.kind == Token::Kind::number && token.text.find_first_not_of("0123456789") == std::string::npos;
}

bool is_function(const Token& token) {
  static const std::set<std::string> names = {"sin",  "cos",  "tan",  "cot", "sec", "csc", "arcsin", "arccos", "arctan",
                                              "sinh", "cosh", "tanh", "ln",  "log", "exp", "abs",    "sqrt",   "cbrt"};
  return token.kind == Token::Kind::name && names.count(token.text);
}

class Parser {
 public:
  // Letters in a row are factors: xy^2 is x times y^2.
  explicit Parser(std::span<const Token> tokens) {
    for (const Token& token : tokens) {
      const bool factors = token.kind == Token::Kind::word && !token.quoted;
      if (!factors) tokens_.push_back(token);
      for (std::size_t i = 0; factors && i < token.text.size(); ++i)
        tokens_.push_back({Token::Kind::symbol, std::string(1, token.text[i])});
    }
  }

  ExpressionPointer run() {
    ExpressionPointer result = sum();
    if (at_ != tokens_.size()) throw NoExpression();
    return result;
  }

 private:
  struct Deeper {
    explicit Deeper(int& depth) : depth_(depth) {
      if (++depth_ > kDeepest) throw NoExpression();
    }
    ~Deeper() { --depth_; }
    int& depth_;
  };

  const Token* peek(std::size_t ahead = 0) const { return at_ + ahead < tokens_.size() ? &tokens_[at_ + ahead] : nullptr; }
  bool next_is(std::string_view mark) const { return peek() && peek()->is(mark); }
  bool take(std::string_view mark) {
    if (!next_is(mark)) return false;
    ++at_;
    return true;
  }
  void expect(std::string_view mark) {
    if (!take(mark)) throw NoExpression();
  }

  ExpressionPointer sum() {
    const Deeper deeper(depth_);
    ExpressionPointer left;
    if (take("-"))
      left = make(Op::negate, {product()});
    else if (take("+-"))
      left = make(Op::plus_minus, {make_number(0), product()});
    else if (take("-+"))
      left = make(Op::minus_plus, {make_number(0), product()});
    else {
      take("+");
      left = product();
    }
    static const std::array<std::pair<std::string_view, Op>, 4> operations = {
        {{"+", Op::add}, {"-", Op::subtract}, {"+-", Op::plus_minus}, {"-+", Op::minus_plus}}};
    for (bool found = true; found;) {
      found = false;
      for (const auto& [mark, op] : operations) {
        if (!take(mark)) continue;
        left = make(op, {left, product()});
        found = true;
        break;
      }
    }
    return left;
  }

  // Whether a factor can begin here, with no sign of multiplication before it.
  bool begins_factor() const {
    const Token* token = peek();
    if (!token) return false;
    if (token->kind == Token::Kind::mark)
      return token->is("(") || token->is("[") || token->is("{") || (token->is("|") && bars_ == 0);
    return token->kind != Token::Kind::number && !token->quoted && !token->named("rfloor") && !token->named("rceil");
  }

  ExpressionPointer product() {
    ExpressionPointer left = mixed_number();
    if (!left) left = signed_power();
    for (;;) {
      if (take("*"))
        left = make(Op::multiply, {left, signed_power()});
      else if (take("/") || take(":"))
        left = make(Op::divide, {left, signed_power()});
      else if (begins_factor())
        left = make(Op::multiply, {left, power()});
      else
        return left;
    }
  }

  // "1\frac{4}{5}", "1 4/5": a whole number and a proper fraction of whole numbers are added.
  ExpressionPointer mixed_number() {
    if (!peek() || !whole(*peek()) || !peek(1)) return nullptr;
    const std::size_t start = at_;
    split_.clear();
    const ExpressionPointer integer = make_number(to_number(tokens_[at_].text));
    const auto two = [&](std::size_t a, std::size_t b) -> ExpressionPointer {
      if (!peek(a) || !peek(b) || !whole(*peek(a)) || !whole(*peek(b))) return nullptr;
      const long double top = to_number(peek(a)->text), bottom = to_number(peek(b)->text);
      return top < bottom ? make(Op::add, {integer, make(Op::divide, {make_number(top), make_number(bottom)})}) : nullptr;
    };
    if (whole(*peek(1)) && peek(2) && peek(2)->is("/")) {
      const ExpressionPointer found = two(1, 3);
      if (found) at_ += 4;
      return found;
    }
    if (!peek(1)->named("frac")) return nullptr;
    at_ += 2;
    const auto top = argument_number(), bottom = argument_number();
    if (top && bottom && *top < *bottom)
      return make(Op::add, {integer, make(Op::divide, {make_number(*top), make_number(*bottom)})});
    at_ = start;
    for (; !split_.empty(); split_.pop_back()) tokens_[split_.back().first].text = split_.back().second;
    return nullptr;
  }

  // A whole number as an argument of a command: braced, or one digit.
  std::optional<long double> argument_number() {
    if (peek() && peek()->is("{") && peek(1) && whole(*peek(1)) && peek(2) && peek(2)->is("}")) {
      at_ += 3;
      return to_number(tokens_[at_ - 2].text);
    }
    if (!peek() || !whole(*peek())) return std::nullopt;
    return to_number(first_digit());
  }

  // The first digit of the number at the position, which is left with the others.
  std::string first_digit() {
    std::string& text = tokens_[at_].text;
    const std::string digit = text.substr(0, 1);
    if (text.size() == 1) {
      ++at_;
      return digit;
    }
    split_.emplace_back(at_, text);
    text.erase(0, 1);
    return digit;
  }

  ExpressionPointer signed_power() {
    const Deeper deeper(depth_);
    if (take("-")) return make(Op::negate, {signed_power()});
    if (take("+")) return signed_power();
    return power();
  }

  ExpressionPointer power() {
    const Deeper deeper(depth_);
    ExpressionPointer base = primary();
    while (take("!")) base = call("factorial", {base});
    if (!take("^")) return base;
    return make(Op::power, {base, exponent()});
  }

  ExpressionPointer exponent() {
    if (take("-")) return make(Op::negate, {exponent()});
    return power();
  }

  // What a command takes: a group, or a single token.
  ExpressionPointer argument() {
    const Deeper deeper(depth_);
    if (peek() && peek()->kind == Token::Kind::number) return make_number(to_number(first_digit()));
    return primary();
  }

  ExpressionPointer enclosed(std::string_view close) {
    const int bars = std::exchange(bars_, 0);
    ++at_;
    ExpressionPointer inside = sum();
    expect(close);
    bars_ = bars;
    return inside;
  }

  ExpressionPointer primary() {
    const Deeper deeper(depth_);
    const Token* token = peek();
    if (!token) throw NoExpression();
    if (token->is("(")) return enclosed(")");
    if (token->is("[")) return enclosed("]");
    if (token->is("{")) return enclosed("}");
    if (token->is("|")) {
      ++at_;
      ++bars_;
      ExpressionPointer inside = sum();
      expect("|");
      --bars_;
      return call("abs", {inside});
    }
    if (token->kind == Token::Kind::number) return number();
    if (token->kind == Token::Kind::symbol) return symbol(tokens_[at_++].text);
    if (token->kind == Token::Kind::name) return name();
    throw NoExpression();
  }

  ExpressionPointer number() {
    const std::string& text = tokens_[at_++].text;
    const ExpressionPointer value = make_number(to_number(text));
    const auto point = text.find('.');
    if (point == std::string::npos || !peek() || !peek()->named("overline")) return value;
    ++at_;  // repeating digits
    const bool braced = take("{");
    if (!peek() || !whole(*peek())) throw NoExpression();
    const std::string repeated = tokens_[at_++].text;
    if (braced) expect("}");
    const auto places = static_cast<int>(text.size() - point - 1), period = static_cast<int>(repeated.size());
    const auto power_of_ten = [](int n) { return make(Op::power, {make_number(10), make_number(n)}); };
    const ExpressionPointer nines = make(Op::subtract, {power_of_ten(period), make_number(1)});
    return make(Op::add,
                {value, make(Op::divide, {make_number(to_number(repeated)), make(Op::multiply, {nines, power_of_ten(places)})})});
  }

  ExpressionPointer symbol(std::string name) {
    if (take("_")) {
      const bool braced = take("{");
      name += "_";
      for (bool first = true; peek() && (braced ? !next_is("}") : first); first = false) name += tokens_[at_++].text;
      if (braced) expect("}");
    }
    return make_symbol(std::move(name));
  }

  ExpressionPointer name() {
    if (is_function(*peek())) return function();
    const std::string name = tokens_[at_++].text;
    if (name == "infty") return make(Op::infinity, {});
    if (name == "frac") {
      const ExpressionPointer top = argument();
      return make(Op::divide, {top, argument()});
    }
    if (name == "binom") {
      const ExpressionPointer top = argument();
      return call("binom", {top, argument()});
    }
    if (name == "lfloor" || name == "lceil") {
      const ExpressionPointer inside = sum();
      if (!peek() || !peek()->named(name == "lfloor" ? "rfloor" : "rceil")) throw NoExpression();
      ++at_;
      return call(name == "lfloor" ? "floor" : "ceil", {inside});
    }
    static const std::set<std::string> letters = {"pi",  "alpha", "beta",  "gamma", "delta", "epsilon", "theta", "lambda", "mu",
                                                  "phi", "rho",   "sigma", "tau",   "omega", "ell",     "Delta", "Omega"};
    if (!letters.count(name)) throw NoExpression();
    return symbol("\\" + name);
  }

  ExpressionPointer function() {
    std::string name = tokens_[at_++].text;
    if (name == "sqrt" && next_is("[")) {
      const ExpressionPointer degree = enclosed("]");
      return call("root", {argument_of_root(), degree});
    }
    if (name == "sqrt" || name == "cbrt") return call(name, {argument_of_root()});
    ExpressionPointer base, exponent_part;
    for (bool found = true; found;) {
      found = false;
      if (name == "log" && !base && take("_")) base = argument(), found = true;
      if (!exponent_part && take("^")) exponent_part = exponent(), found = true;
    }
    if (exponent_part && exponent_part->op == Op::negate && exponent_part->parts[0]->op == Op::number &&
        exponent_part->parts[0]->number == 1 && (name == "sin" || name == "cos" || name == "tan")) {
      name = "arc" + name;
      exponent_part = nullptr;
    }
    ExpressionPointer result = call(name, {argument_of_function()});
    if (base) result = make(Op::divide, {call("ln", result->parts), call("ln", {base})});
    return exponent_part ? make(Op::power, {result, exponent_part}) : result;
  }

  // \sqrt 12 is meant as the root of 12.
  ExpressionPointer argument_of_root() { return primary(); }

  // Parentheses, or factors up to the next sign or function: sin 2x.
  ExpressionPointer argument_of_function() {
    const Deeper deeper(depth_);
    if (next_is("(") || next_is("[") || next_is("{") || next_is("|")) return primary();
    ExpressionPointer left = signed_power();
    while (begins_factor() && !is_function(*peek()) && !next_is("(")) left = make(Op::multiply, {left, power()});
    return left;
  }

  std::vector<Token> tokens_;
  std::vector<std::pair<std::size_t, std::string>> split_;  // numbers that lost digits, by position, as they were
  std::size_t at_ = 0;
  int depth_ = 0;
  int bars_ = 0;  // open |
};

}  // namespace parsing

ExpressionPointer parse_expression(std::span<const Token> tokens) {
  if (tokens.empty()) return nullptr;
  try {
    return parsing::Parser(tokens).run();
  } catch (const parsing::NoExpression&) {
    return nullptr;
  }
}

}  // namespace molt::answer
