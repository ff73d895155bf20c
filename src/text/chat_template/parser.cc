// Statements. Expressions are in expression_parser.cc.
#include "text/chat_template/parser.h"

#include <algorithm>
#include <initializer_list>

#include "base/error.h"
#include "text/chat_template/expression_parser.h"

namespace molt::jinja {
namespace parser_detail {

using Kind = Token::Kind;

class Parser {
 public:
  explicit Parser(const Source& source) : source_(source), tokens_(source) {}

  Body run() { return body({}); }

 private:
  using Ends = std::initializer_list<std::string_view>;

  // Statements up to the tag of one of these names, which stays; without names up to the end.
  Body body(Ends ends) {
    const Nesting nesting(tokens_);
    Body statements;
    while (tokens_.peek().kind != Kind::end) {
      const Token& token = tokens_.next();
      if (token.kind == Kind::data) {
        statements.push_back({token.at, Text{token.text}});
      } else if (token.kind == Kind::print_begin) {
        statements.push_back({token.at, Print{tokens_.parse_tuple()}});
        tokens_.expect(Kind::print_end, "}}");
      } else {
        const Token& tag = tokens_.peek();
        if (tag.kind == Kind::name && std::find(ends.begin(), ends.end(), tag.text) != ends.end()) return statements;
        statement(statements);
        tokens_.expect(Kind::block_end, "%}");
      }
    }
    if (ends.size()) tokens_.fail_here("expected {% ", *(ends.end() - 1), " %}");
    return statements;
  }

  // The body of a tag, behind the end of the tag; the end tag is taken.
  Body body_until(std::string_view end) {
    tokens_.skip_sign(":");
    tokens_.expect(Kind::block_end, "%}");
    Body statements = body({end});
    tokens_.next();
    return statements;
  }
  Body body_before(Ends ends) {
    tokens_.skip_sign(":");
    tokens_.expect(Kind::block_end, "%}");
    return body(ends);
  }

  void statement(Body& out) {
    const Token& tag = tokens_.expect(Kind::name, "the name of a tag");
    using Parse = void (Parser::*)(std::size_t, Body&);
    constexpr std::pair<std::string_view, Parse> table[] = {
        {"if", &Parser::parse_if},           {"for", &Parser::parse_for},           {"set", &Parser::parse_set},
        {"macro", &Parser::parse_macro},     {"call", &Parser::parse_call},         {"filter", &Parser::parse_filter},
        {"with", &Parser::parse_with},       {"print", &Parser::parse_print},       {"generation", &Parser::parse_generation},
        {"break", &Parser::parse_loop_exit}, {"continue", &Parser::parse_loop_exit}};
    for (const auto& [name, parse] : table) {
      if (tag.text == name) return (this->*parse)(tag.at, out);
    }
    fail(source_.place(tag.at), ": found the tag ", tag.text,
         ", expected one of if, for, set, macro, call, filter, with, print, generation, break, continue, raw");
  }

  void parse_if(std::size_t at, Body& out) {
    If node;
    std::string_view end = "if";
    while (end != "endif") {
      if (end == "else") {
        node.otherwise = body_until("endif");
        break;
      }
      ExpressionPtr condition = tokens_.parse_tuple(false);
      Body then = body_before({"elif", "else", "endif"});
      node.branches.emplace_back(std::move(condition), std::move(then));
      end = tokens_.next().text;
    }
    out.push_back({at, std::move(node)});
  }

  void parse_for(std::size_t at, Body& out) {
    For node;
    node.target = tokens_.parse_target(false, "in");
    tokens_.expect_name("in");
    node.items = tokens_.parse_tuple(false, "recursive");
    if (tokens_.skip_name("if")) node.condition = tokens_.parse_expression();
    if (tokens_.peek().is_name("recursive")) tokens_.fail_here("expected a loop that is not recursive (use a macro)");
    ++loops_;
    node.body = body_before({"else", "endfor"});
    --loops_;
    if (tokens_.next().text == "else") node.otherwise = body_until("endfor");
    out.push_back({at, std::move(node)});
  }

  void parse_set(std::size_t at, Body& out) {
    Target target = tokens_.parse_target(true, "");
    if (tokens_.skip_sign("=")) {
      out.push_back({at, Set{std::move(target), tokens_.parse_tuple()}});
    } else {
      std::vector<Step> filters = tokens_.parse_filters();
      Body inner = body_until("endset");
      out.push_back({at, SetBlock{std::move(target), std::move(filters), std::move(inner)}});
    }
  }

  void parse_with(std::size_t at, Body& out) {
    With node;
    while (tokens_.peek().kind != Kind::block_end) {
      if (!node.variables.empty()) tokens_.expect_sign(",");
      Target target = tokens_.parse_target(false, "");
      tokens_.expect_sign("=");
      node.variables.emplace_back(std::move(target), tokens_.parse_expression());
    }
    node.body = body_until("endwith");
    out.push_back({at, std::move(node)});
  }

  void parse_macro(std::size_t at, Body& out) {
    Macro macro;
    macro.name = tokens_.expect(Kind::name, "the name of a macro").text;
    signature(macro);
    macro_body(macro, "endmacro");
    out.push_back({at, std::move(macro)});
  }

  void parse_call(std::size_t at, Body& out) {
    CallBlock node;
    node.caller.name = "caller";
    if (tokens_.peek().is_sign("(")) signature(node.caller);
    node.call = tokens_.parse_expression();
    const auto* call = std::get_if<Postfix>(&node.call->what);
    if (!call || !std::holds_alternative<Call>(call->steps.back().what))
      fail(source_.place(node.call->at), ": found no call behind {% call, expected one such as name()");
    macro_body(node.caller, "endcall");
    out.push_back({at, std::move(node)});
  }

  void signature(Macro& macro) {
    tokens_.expect_sign("(");
    while (!tokens_.skip_sign(")")) {
      if (!macro.parameters.empty()) tokens_.expect_sign(",");
      const Token& name = tokens_.expect(Kind::name, "the name of a parameter");
      ExpressionPtr fallback = tokens_.skip_sign("=") ? tokens_.parse_expression() : nullptr;
      if (!fallback && !macro.parameters.empty() && macro.parameters.back().fallback)
        fail(source_.place(name.at), ": found ", name.text, " without a default behind one that has one");
      macro.parameters.push_back({name.text, std::move(fallback)});
    }
  }

  // A loop around the macro is none of its own.
  void macro_body(Macro& macro, std::string_view end) {
    const int loops = std::exchange(loops_, 0);
    const auto outer = tokens_.names_used();
    tokens_.names_used() = {};
    macro.body = body_until(end);
    auto& used = tokens_.names_used();
    macro.uses_varargs = used.varargs, macro.uses_kwargs = used.kwargs, macro.uses_caller = used.caller;
    used = {used.varargs || outer.varargs, used.kwargs || outer.kwargs, used.caller || outer.caller};
    loops_ = loops;
  }

  void parse_filter(std::size_t at, Body& out) {
    std::vector<Step> filters = tokens_.parse_filters(true);
    Body inner = body_until("endfilter");
    out.push_back({at, FilterBlock{std::move(filters), std::move(inner)}});
  }

  void parse_print(std::size_t at, Body& out) {
    do out.push_back({at, Print{tokens_.parse_expression()}});
    while (tokens_.skip_sign(","));
  }

  void parse_generation(std::size_t at, Body& out) {
    const int loops = std::exchange(loops_, 0);
    out.push_back({at, Generation{body_until("endgeneration")}});
    loops_ = loops;
  }

  void parse_loop_exit(std::size_t at, Body& out) {
    const bool breaks = tokens_.last().text == "break";
    if (loops_ == 0) fail(source_.place(at), ": found ", tokens_.last().text, " outside of a loop");
    if (breaks) {
      out.push_back({at, Break{}});
    } else {
      out.push_back({at, Continue{}});
    }
  }

  const Source& source_;
  ExpressionParser tokens_;
  int loops_ = 0;  // around the statement, in its macro
};

}  // namespace parser_detail

Body parse(const Source& source) {
  return parser_detail::Parser(source).run();
}

}  // namespace molt::jinja
