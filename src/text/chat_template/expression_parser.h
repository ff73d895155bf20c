// The tokens of a template with a place in them, and the expressions that begin there.
#pragma once
#include <string_view>
#include <vector>

#include "base/error.h"
#include "text/chat_template/lexer.h"
#include "text/chat_template/tree.h"

namespace molt::jinja {

class ExpressionParser {
 public:
  // Names that a macro gets only if it uses them.
  struct NamesUsed {
    bool varargs = false, kwargs = false, caller = false;
  };

  explicit ExpressionParser(const Source& source) : source_(source), tokens_(tokenize(source)) {}

  const Token& peek(std::size_t ahead = 0) const { return tokens_[std::min(at_ + ahead, tokens_.size() - 1)]; }
  const Token& next();
  const Token& last() const { return tokens_[at_ - 1]; }
  const Token& expect(Token::Kind kind, const char* what);
  void expect_sign(std::string_view sign);
  void expect_name(std::string_view name);
  bool skip_sign(std::string_view sign);
  bool skip_name(std::string_view name);
  // "chat_template.jinja:3:9: found TOKEN, " and the message.
  template <class... Parts>
  [[noreturn]] void fail_here(const Parts&... parts) const {
    fail(source_.place(peek().at), ": found ", describe(peek()), ", ", parts...);
  }

  ExpressionPtr parse_expression(bool with_choice = true);
  // One expression, or several with commas between them as a tuple, up to the name `end` or the end of the tag.
  ExpressionPtr parse_tuple(bool with_choice = true, std::string_view end = "");
  Target parse_target(bool with_fields, std::string_view end);
  // Filters with "|" before each; before the first only unless it `starts_inline`.
  std::vector<Step> parse_filters(bool starts_inline = false);

  NamesUsed& names_used() { return names_used_; }

 private:
  friend class Nesting;

  static std::string describe(const Token& token);
  template <class Node>
  static ExpressionPtr make(std::size_t at, Node node) {
    return std::make_unique<const Expression>(Expression{at, std::move(node)});
  }

  ExpressionPtr parse_choice();
  ExpressionPtr parse_logic(bool is_and);
  ExpressionPtr parse_not();
  ExpressionPtr parse_comparisons();
  ExpressionPtr parse_chain(int level);
  ExpressionPtr parse_unary(bool with_filters = true);
  ExpressionPtr parse_postfix(ExpressionPtr base, bool with_filters, bool with_attributes = true);
  ExpressionPtr parse_primary();
  ExpressionPtr parse_name();
  ExpressionPtr parse_parentheses();
  ExpressionPtr parse_list();
  ExpressionPtr parse_dict();
  Step parse_attribute();
  Step parse_subscript();
  Step parse_filter();
  Step parse_test();
  CallArguments parse_arguments();
  Target parse_one_target(bool with_fields);

  const Source& source_;
  std::vector<Token> tokens_;
  std::size_t at_ = 0;
  int nesting_ = 0;
  NamesUsed names_used_;
};

// A level of nesting while it lives.
class Nesting {
 public:
  explicit Nesting(ExpressionParser& parser);
  ~Nesting() { --parser_.nesting_; }
  Nesting(const Nesting&) = delete;
  Nesting& operator=(const Nesting&) = delete;

 private:
  ExpressionParser& parser_;
};

}  // namespace molt::jinja
