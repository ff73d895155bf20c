#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numbers>

#include "base/random.h"
#include "evaluate/answer/expression.h"

namespace molt::answer {
namespace computing {

using Op = Expression::Op;
using Complex = std::complex<long double>;

constexpr long double kEpsilon = std::numeric_limits<long double>::epsilon();
constexpr long double kInfinity = std::numeric_limits<long double>::infinity();
constexpr long double kLargestFactorial = 1000;

const Value kNone{{std::numeric_limits<long double>::quiet_NaN(), 0}, 0};

bool finite(const Complex& z) {
  return std::isfinite(z.real()) && std::isfinite(z.imag());
}

// What an operation gives, rounded once; nothing where it leaves the numbers.
Value rounded(const Complex& value, long double error) {
  if (!finite(value) || !std::isfinite(error)) return kNone;
  return {value, error + kEpsilon * std::abs(value)};
}

Complex factorial(Complex z) {
  const long double n = z.real();
  if (z.imag() != 0 || n < 0 || n != std::floor(n) || n > kLargestFactorial) return kNone.value;
  return std::tgamma(n + 1);
}

Complex on_reals(Complex z, long double (*f)(long double)) {
  return z.imag() == 0 ? Complex(f(z.real())) : kNone.value;
}

Complex apply(const std::string& name, Complex z) {
  static const std::map<std::string, Complex (*)(Complex)> functions = {
      {"sin", [](Complex x) { return std::sin(x); }},
      {"cos", [](Complex x) { return std::cos(x); }},
      {"tan", [](Complex x) { return std::tan(x); }},
      {"cot", [](Complex x) { return Complex(1) / std::tan(x); }},
      {"sec", [](Complex x) { return Complex(1) / std::cos(x); }},
      {"csc", [](Complex x) { return Complex(1) / std::sin(x); }},
      {"arcsin", [](Complex x) { return std::asin(x); }},
      {"arccos", [](Complex x) { return std::acos(x); }},
      {"arctan", [](Complex x) { return std::atan(x); }},
      {"sinh", [](Complex x) { return std::sinh(x); }},
      {"cosh", [](Complex x) { return std::cosh(x); }},
      {"tanh", [](Complex x) { return std::tanh(x); }},
      {"exp", [](Complex x) { return std::exp(x); }},
      {"ln", [](Complex x) { return std::log(x); }},
      {"log", [](Complex x) { return std::log(x); }},
      {"sqrt", [](Complex x) { return std::sqrt(x); }},
      {"cbrt", [](Complex x) { return on_reals(x, [](long double r) { return std::cbrt(r); }); }},
      {"abs", [](Complex x) { return Complex(std::abs(x)); }},
      {"floor", [](Complex x) { return on_reals(x, [](long double r) { return std::floor(r); }); }},
      {"ceil", [](Complex x) { return on_reals(x, [](long double r) { return std::ceil(r); }); }},
      {"factorial", factorial}};
  return functions.at(name)(z);
}

bool whole(const Complex& z) {
  return z.imag() == 0 && z.real() == std::floor(z.real());
}

// Whole exponents without logarithms, so that powers of whole numbers are exact as long as they fit.
Complex power(Complex base, Complex exponent) {
  if (!whole(exponent) || std::abs(exponent.real()) > 1e5L) return base == Complex(0) ? Complex(0) : std::pow(base, exponent);
  auto n = static_cast<long long>(std::abs(exponent.real()));
  Complex result = 1;
  for (Complex square = base; n > 0; n >>= 1, square *= square)
    if (n & 1) result *= square;
  return exponent.real() < 0 ? Complex(1) / result : result;
}

Complex root(Complex z, Complex degree) {
  const bool odd = whole(degree) && std::fmod(degree.real(), 2.0L) != 0;
  if (odd && z.imag() == 0 && z.real() < 0) return -power(-z, Complex(1) / degree);
  return power(z, Complex(1) / degree);
}

Complex binomial(Complex n, Complex k) {
  if (n.imag() != 0 || !whole(k) || k.real() < 0 || k.real() > kLargestFactorial) return kNone.value;
  long double result = 1;
  for (long double i = 1; i <= k.real(); ++i) result = result * (n.real() - k.real() + i) / i;
  return result;
}

// f of values with errors: how far the result moves with them is tried out.
template <class Function>
Value spread(Function f, const Value& a) {
  const Complex value = f(a.value);
  const long double error = a.error > 0 ? std::abs(f(a.value + a.error) - value) + std::abs(f(a.value - a.error) - value) : 0;
  return rounded(value, error + 2 * kEpsilon * std::abs(value));
}
template <class Function>
Value spread(Function f, const Value& a, const Value& b) {
  const Value first = spread([&](Complex x) { return f(x, b.value); }, a);
  const Value second = spread([&](Complex x) { return f(a.value, x); }, b);
  return rounded(first.value, first.error + second.error);
}

Value add(const Value& a, const Value& b, long double sign) {
  return rounded(a.value + sign * b.value, a.error + b.error);
}

Value multiply(const Value& a, const Value& b) {
  return rounded(a.value * b.value, std::abs(a.value) * b.error + std::abs(b.value) * a.error + a.error * b.error);
}

Value divide(const Value& a, const Value& b) {
  const long double size = std::abs(b.value);
  if (size <= b.error) return kNone;
  const Complex value = a.value / b.value;
  return rounded(value, (a.error + std::abs(value) * b.error) / (size - b.error));
}

// Values of a symbol: of both signs at most points, positive at the last three; the constants everywhere.
Value symbol(const std::string& name, int point) {
  if (name == "i") return {Complex(0, 1), 0};
  if (name == "e") return {std::numbers::e_v<long double>, kEpsilon};
  if (name == "\\pi") return {std::numbers::pi_v<long double>, 2 * kEpsilon};
  Random random(derive_seed(20, name, static_cast<std::uint64_t>(point)));
  const double size = 0.25 + 2.5 * random.uniform();
  return {point < sample_points - 3 && random.uniform() < 0.5 ? -size : size, 0};
}

Value call(const Expression& expression, const std::vector<Value>& values) {
  if (expression.name == "root") return spread(root, values[0], values[1]);
  if (expression.name == "binom") {
    const Complex found = binomial(values[0].value, values[1].value);
    const long double factors = std::abs(values[1].value) + 1;
    return rounded(found, 4 * factors * kEpsilon * std::abs(found) + values[0].error * factors * std::abs(found));
  }
  const bool steps = expression.name == "floor" || expression.name == "ceil" || expression.name == "factorial";
  const Value argument{values[0].value, steps ? 0 : values[0].error};
  const Value result = spread([&](Complex z) { return apply(expression.name, z); }, argument);
  // Without a base it is the decimal logarithm to some and the natural one to others; \log_b is a quotient of ln.
  return expression.name == "log" ? divide(result, {std::log(10.0L), kEpsilon}) : result;
}

}  // namespace computing

Value compute(const Expression& expression, int point, int sign) {
  using namespace computing;
  if (expression.op == Op::number) {
    const long double number = expression.number;
    const bool exact = number == std::floor(number) && std::abs(number) < 1e18L;
    return {number, exact ? 0 : kEpsilon * std::abs(number)};
  }
  if (expression.op == Op::symbol) return symbol(expression.name, point);
  if (expression.op == Op::infinity) return {kInfinity, 0};
  std::vector<Value> values;
  for (const auto& part : expression.parts) values.push_back(compute(*part, point, sign));
  if (expression.op == Op::negate) return {Complex(0) - values[0].value, values[0].error};
  for (const Value& value : values)
    if (!finite(value.value)) return kNone;
  switch (expression.op) {
    case Op::add:
      return add(values[0], values[1], 1);
    case Op::subtract:
      return add(values[0], values[1], -1);
    case Op::plus_minus:
      return add(values[0], values[1], static_cast<long double>(sign));
    case Op::minus_plus:
      return add(values[0], values[1], static_cast<long double>(-sign));
    case Op::multiply:
      return multiply(values[0], values[1]);
    case Op::divide:
      return divide(values[0], values[1]);
    case Op::power:
      return spread(power, values[0], values[1]);
    default:
      return call(expression, values);
  }
}

std::set<std::string> symbols_of(const Expression& expression) {
  std::set<std::string> found;
  if (expression.op == Expression::Op::symbol) found.insert(expression.name);
  for (const auto& part : expression.parts) found.merge(symbols_of(*part));
  return found;
}

bool has_plus_minus(const Expression& expression) {
  if (expression.op == Expression::Op::plus_minus || expression.op == Expression::Op::minus_plus) return true;
  return std::any_of(expression.parts.begin(), expression.parts.end(), [](const auto& part) { return has_plus_minus(*part); });
}

namespace computing {

bool close(const Value& a, const Value& b) {
  return std::abs(a.value - b.value) <= 16 * (a.error + b.error);
}

// Bounds of the error as wide as the values judge nothing.
bool sharp(const Value& value) {
  return value.error <= 1e-9L * std::abs(value.value) || value.error <= 1e-12L;
}

bool is_real(const Value& value) {
  return std::abs(value.value.imag()) <= 16 * value.error;
}

}  // namespace computing

bool equal(const Expression& a, int sign_a, const Expression& b, int sign_b) {
  using namespace computing;
  auto symbols = symbols_of(a);
  symbols.merge(symbols_of(b));
  const bool complex_numbers = symbols.count("i") > 0;
  for (const char* constant : {"i", "e", "\\pi"}) symbols.erase(constant);
  if (symbols.empty()) {
    const Value x = compute(a, 0, sign_a), y = compute(b, 0, sign_b);
    if (!finite(x.value) || !finite(y.value)) return x.value == y.value;
    return sharp(x) && sharp(y) && close(x, y);
  }
  int judged = 0;
  for (int point = 0; point < sample_points; ++point) {
    const Value x = compute(a, point, sign_a), y = compute(b, point, sign_b);
    if (!finite(x.value) || !finite(y.value) || !sharp(x) || !sharp(y)) continue;
    // Where only one of \ln x^2 and 2\ln x is real, a branch was chosen, not another function.
    if (!complex_numbers && (!is_real(x) || !is_real(y))) continue;
    if (!close(x, y)) return false;
    ++judged;
  }
  return judged >= 2;
}

bool proportional(const Expression& a, const Expression& b) {
  using namespace computing;
  int judged = 0;
  Value first;
  for (int point = 0; point < sample_points; ++point) {
    const Value x = compute(a, point, 1), y = compute(b, point, 1);
    if (!finite(x.value) || !finite(y.value)) continue;
    const Value ratio = divide(x, y);
    if (!finite(ratio.value) || !sharp(ratio) || std::abs(x.value) <= 16 * x.error) continue;
    if (judged++ == 0)
      first = ratio;
    else if (!close(first, ratio))
      return false;
  }
  return judged >= 2;
}

}  // namespace molt::answer
