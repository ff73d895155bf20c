// What an answer is made of: lists, sets, tuples, intervals, equations, matrices, and expressions at the leaves.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "evaluate/answer/expression.h"

namespace molt::answer {

struct Structure {
  enum class Kind { text, value, list, set, bracketed, union_of, equation, matrix };
  Kind kind = Kind::text;
  std::string text = {};              // its tokens in plain form: of text in lower case, of an integer its digits
  std::string name = {};              // "x" of x = 5 and of x > 2; may be empty
  std::string unit = {};              // "cm", "%", "degree"; may be empty
  char open = 0, close = 0;           // bracketed
  std::int64_t rows = 0;              // matrix
  ExpressionPointer expression = {};  // value; of a short word, the product of its letters
  int sign = 1;                       // value: which one of "+-"
  ExpressionPointer difference = {};  // left minus right side: equation, and value that has a name
  std::vector<Structure> parts = {};
};

Structure read_structure(std::span<const Token> tokens);

}  // namespace molt::answer
