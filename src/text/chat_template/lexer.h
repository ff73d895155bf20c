// A template's text as tokens.
#pragma once
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "text/chat_template/value.h"

namespace molt::jinja {

// The text of a template with "\n" for every line end and without a last empty line, and what names it in errors.
struct Source {
  Source(std::string_view text, std::string the_name);

  // "chat_template.jinja:3:14": line and column in characters, from 1.
  std::string place(std::size_t offset) const;

  std::string text, name;
};

struct Token {
  enum class Kind { data, print_begin, print_end, block_begin, block_end, name, text, integer, real, sign, end };
  Kind kind;
  std::size_t at;    // offset in the source
  std::string text;  // data, name, sign, or a string literal's value
  Value number = {};

  bool is_sign(std::string_view sign) const { return kind == Kind::sign && text == sign; }
  bool is_name(std::string_view name) const { return kind == Kind::name && text == name; }
};

// With trim_blocks and lstrip_blocks, as transformers sets them: the line end after a block and the white space before it on its
// line are no data. UserError with the place for what is no template. The last token is of kind `end`.
std::vector<Token> tokenize(const Source& source);

}  // namespace molt::jinja
