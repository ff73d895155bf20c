// LaTeX or plain text to tokens, with everything gone that only concerns its looks.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace molt::answer {

struct Token {
  enum class Kind {
    number,  // text: decimal digits, perhaps a point and an exponent, without separators
    symbol,  // one letter
    name,    // a known name or a command: "pi", "sqrt", "frac", "infty", "sin", …
    word,    // other letters in a row, or what stands in \text{…}
    mark,    // one of + - * / ^ _ ( ) [ ] { } \{ \} < > = , ; | ! & : or "<=" ">=" "!=" "+-" "-+" "\\" "%" "$" "deg"
  };
  Kind kind;
  std::string text;
  bool spaced = false;  // white space stands before it
  bool quoted = false;  // from \text{…}
  bool is(std::string_view mark) const { return kind == Kind::mark && text == mark; }
  bool named(std::string_view name) const { return kind == Kind::name && text == name; }
};

struct Tokens {
  std::vector<Token> list;
  bool grouped = false;  // a number had separators of thousands that could also separate a list: "1,200"
};

// Nothing for a text of more than 1,000 tokens. With `group`, "1,200" is one number, otherwise two with a comma.
std::optional<Tokens> tokenize(std::string_view text, bool group);

}  // namespace molt::answer
