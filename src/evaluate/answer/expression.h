// Expressions: parsed from tokens, and computed with a bound of the rounding error.
#pragma once
#include <complex>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "evaluate/answer/tokens.h"

namespace molt::answer {

struct Expression {
  enum class Op { number, symbol, add, subtract, multiply, divide, power, negate, plus_minus, minus_plus, function, infinity };
  Op op;
  long double number = 0;
  std::string name = {};  // of a symbol or a function
  std::vector<std::shared_ptr<const Expression>> parts = {};
};
using ExpressionPointer = std::shared_ptr<const Expression>;

// The whole span as one expression; null when it is none, or nests deeper than 64 levels.
ExpressionPointer parse_expression(std::span<const Token> tokens);

// The symbols in it, and whether "+-" or "-+" is among its operations, or the imaginary unit ("i").
std::set<std::string> symbols_of(const Expression& expression);
bool has_plus_minus(const Expression& expression);

// A value and a bound of its error; not a number where the expression has no value, or one beyond long double.
struct Value {
  std::complex<long double> value;
  long double error = 0;
};

// At sample point `point` (0 to sample_points - 1), with "+-" as + (sign 1) or - (sign -1).
constexpr int sample_points = 8;
Value compute(const Expression& expression, int point, int sign);

// Whether both are the same wherever they can be judged; at least two sample points must be.
bool equal(const Expression& a, int sign_a, const Expression& b, int sign_b);
// Whether one is a constant times the other, and neither is 0.
bool proportional(const Expression& a, const Expression& b);

}  // namespace molt::answer
