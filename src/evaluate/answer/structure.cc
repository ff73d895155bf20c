#include "evaluate/answer/structure.h"

#include <algorithm>
#include <map>
#include <optional>

#include "evaluate/answer/units.h"

namespace molt::answer {
namespace structures {

using Kind = Structure::Kind;
using Span = std::span<const Token>;

constexpr int kDeepest = 16;

bool opens(const Token& token) {
  return token.is("(") || token.is("[") || token.is("{") || token.is("\\{") ||
         (token.kind == Token::Kind::name && token.text.starts_with("begin "));
}
bool closes(const Token& token) {
  return token.is(")") || token.is("]") || token.is("}") || token.is("\\}") ||
         (token.kind == Token::Kind::name && token.text.starts_with("end "));
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 32) : c; });
  return text;
}

std::string plain(Span tokens, const char* between = "") {
  std::string text;
  for (const Token& token : tokens) {
    if (token.is("{") || token.is("}")) continue;
    text += (text.empty() ? "" : between) + token.text;
  }
  return text;
}

// The parts between tokens outside all brackets for which `separates` holds.
template <class Separates>
std::vector<Span> split(Span tokens, Separates separates) {
  std::vector<Span> parts;
  std::size_t begin = 0, depth = 0;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (opens(tokens[i])) ++depth;
    if (closes(tokens[i]) && depth > 0) --depth;
    if (depth > 0 || !separates(tokens[i])) continue;
    parts.push_back(tokens.subspan(begin, i - begin));
    begin = i + 1;
  }
  parts.push_back(tokens.subspan(begin));
  return parts;
}

bool is_comma(const Token& token) {
  return token.is(",") || token.is(";") || token.named("and") || token.named("or");
}
bool is_relation(const Token& token) {
  return token.is("=") || token.is("<") || token.is(">") || token.is("<=") || token.is(">=") || token.named("in");
}

// Whether the first token's bracket is closed by the last one.
bool enclosed(Span tokens) {
  if (tokens.size() < 2 || !opens(tokens.front()) || !closes(tokens.back())) return false;
  std::size_t depth = 0;
  for (std::size_t i = 0; i + 1 < tokens.size(); ++i) {
    if (opens(tokens[i])) ++depth;
    if (closes(tokens[i]) && --depth == 0) return false;
  }
  return true;
}

Structure text_of(Span tokens) {
  Structure result;
  result.text = lower(plain(tokens, " "));
  const auto dropped = [](char c) { return c == '.' || c == '(' || c == ')' || c == '"' || c == '\'' || c == '\\'; };
  result.text.erase(std::remove_if(result.text.begin(), result.text.end(), dropped), result.text.end());
  result.text.erase(0, result.text.find_first_not_of(' '));
  result.text.erase(result.text.find_last_not_of(' ') + 1);
  return result;
}

// Words alone: "no solution", \text{Evelyn}. A single letter is a symbol, also as \text{(B)}.
bool only_words(Span tokens) {
  bool word = false;
  for (const Token& token : tokens) {
    if (token.kind == Token::Kind::word)
      word = true;
    else if (token.kind != Token::Kind::symbol && !token.is("(") && !token.is(")") && !token.is("-"))
      return false;
  }
  return word;
}

class Reader {
 public:
  Structure read(Span tokens) {
    if (++depth_ > kDeepest) return text_of(tokens);
    Structure result = read_list(tokens);
    --depth_;
    return result;
  }

 private:
  // Parts of lists within lists, and of "+-", become parts of one.
  static void append(std::vector<Structure>& parts, Structure part) {
    if (part.kind != Kind::list) return parts.push_back(std::move(part));
    for (Structure& inner : part.parts) {
      if (inner.name.empty()) inner.name = part.name;
      if (inner.unit.empty()) inner.unit = part.unit;
      parts.push_back(std::move(inner));
    }
  }

  Structure collection(Kind kind, const std::vector<Span>& parts) {
    Structure result;
    result.kind = kind;
    for (const Span part : parts) {
      if (!part.empty()) append(result.parts, read(part));
    }
    return result;
  }

  // "x < 2 or x > 3"
  static bool alternatives(Span tokens, const Structure& list) {
    const auto other = [](const Token& token) { return is_comma(token) && !token.named("or"); };
    const auto inequality = [](const Structure& part) { return part.kind == Kind::bracketed && !part.name.empty(); };
    return split(tokens, other).size() == 1 && std::all_of(list.parts.begin(), list.parts.end(), inequality);
  }

  Structure read_list(Span tokens) {
    while (enclosed(tokens) && tokens.front().is("{")) tokens = tokens.subspan(1, tokens.size() - 2);
    const std::vector<Span> parts = split(tokens, is_comma);
    if (parts.size() > 1 && !only_words(tokens)) {
      Structure result = collection(Kind::list, parts);
      if (result.parts.size() == 1) return Structure(result.parts.front());
      if (alternatives(tokens, result)) result.kind = Kind::union_of;
      return result;
    }
    return read_relation(tokens);
  }

  Structure read_relation(Span tokens) {
    const std::vector<Span> sides = split(tokens, is_relation);
    if (sides.size() == 1) return read_union(tokens);
    std::vector<std::string> relations;
    for (std::size_t i = 1; i < sides.size(); ++i) {
      const Token& token = *(sides[i].data() - 1);
      relations.push_back(token.text);
    }
    if (relations.front() == "in" && sides.size() == 2) return named(sides[0], read(sides[1]));
    if (relations.front() != "=") return inequality(tokens, sides, relations);
    return equality(tokens, sides);
  }

  // A symbol, a word, or f(x).
  static std::optional<std::string> name_of(Span side) {
    const auto letter = [](const Token& token) { return token.kind == Token::Kind::symbol || token.kind == Token::Kind::word; };
    if (side.empty() || side.size() > 6) return std::nullopt;
    const bool greek = side[0].kind == Token::Kind::name && side.size() == 1 && !side[0].named("infty") && !side[0].named("pi");
    if (!letter(side[0]) && !greek) return std::nullopt;
    const bool simple = std::all_of(side.begin(), side.end(), letter) || greek;
    const bool subscript = side.size() > 2 && side[1].is("_");
    const bool call = side.size() > 3 && side[1].is("(") && side.back().is(")");
    if (!simple && !subscript && !call) return std::nullopt;
    return plain(side);
  }

  Structure named(Span side, Structure value) {
    if (const auto name = name_of(side)) value.name = *name;
    return value;
  }

  Structure equality(Span tokens, std::vector<Span> sides) {
    const bool swapped = sides.size() == 2 && !name_of(sides[0]) && name_of(sides[1]);
    if (swapped) std::swap(sides[0], sides[1]);
    Structure result;
    const ExpressionPointer left = parse_expression(sides.front()), right = parse_expression(sides.back());
    const bool two = sides.size() == 2 && left && right && !has_plus_minus(*left) && !has_plus_minus(*right);
    const ExpressionPointer difference =
        two ? std::make_shared<Expression>(Expression{Expression::Op::subtract, 0, {}, {left, right}}) : nullptr;
    if (name_of(sides.front())) {
      result = named(sides.front(), read(sides.back()));
      result.difference = difference;
      return result;
    }
    if (!difference) return text_of(tokens);
    result.kind = Kind::equation;
    result.text = lower(plain(tokens));
    result.difference = difference;
    return result;
  }

  // x > 2 and 1 < x \le 3 as intervals.
  Structure inequality(Span tokens, const std::vector<Span>& sides, const std::vector<std::string>& relations) {
    const auto middle = std::find_if(sides.begin(), sides.end(), [](Span side) { return name_of(side).has_value(); });
    if (middle == sides.end() || sides.size() > 3 || (sides.size() == 3 && middle != sides.begin() + 1)) return text_of(tokens);
    const bool less = relations.front()[0] == '<';
    if (sides.size() == 3 && less != (relations.back()[0] == '<')) return text_of(tokens);
    const auto at = static_cast<std::size_t>(middle - sides.begin());
    Structure result;
    result.kind = Kind::bracketed;
    result.name = *name_of(*middle);
    // What stands before the name when read with "<", and what behind it.
    std::optional<std::size_t> low, high;
    if (at > 0) (less ? low : high) = at - 1;
    if (at + 1 < sides.size()) (less ? high : low) = at + 1;
    const auto closed = [&](std::size_t side) { return relations[side < at ? side : side - 1].ends_with("="); };
    result.open = low && closed(*low) ? '[' : '(';
    result.close = high && closed(*high) ? ']' : ')';
    result.parts.push_back(low ? read(sides[*low]) : infinite(-1));
    result.parts.push_back(high ? read(sides[*high]) : infinite(1));
    return result;
  }

  static Structure infinite(int sign) {
    Structure result;
    result.kind = Kind::value;
    result.expression = std::make_shared<Expression>(Expression{Expression::Op::infinity});
    if (sign < 0)
      result.expression = std::make_shared<Expression>(Expression{Expression::Op::negate, 0, {}, {result.expression}});
    return result;
  }

  Structure read_union(Span tokens) {
    const std::vector<Span> parts = split(tokens, [](const Token& token) { return token.named("cup"); });
    if (parts.size() > 1) return collection(Kind::union_of, parts);
    return read_brackets(tokens);
  }

  Structure read_brackets(Span tokens) {
    if (tokens.size() == 1 && tokens[0].named("emptyset")) return collection(Kind::set, {});
    if (tokens.size() == 1 && (tokens[0].named("mathbb R"))) {
      Structure result{.kind = Kind::bracketed, .open = '(', .close = ')'};
      result.parts = {infinite(-1), infinite(1)};
      return result;
    }
    if (!enclosed(tokens)) return read_value(tokens);
    const Span inside = tokens.subspan(1, tokens.size() - 2);
    const Token &open = tokens.front(), &close = tokens.back();
    if (open.kind == Token::Kind::name) return read_matrix(tokens, inside);
    const std::vector<Span> parts = split(inside, is_comma);
    if (open.is("\\{") && close.is("\\}")) return collection(Kind::set, parts);
    const bool grouping = parts.size() == 1 && open.is("(") && close.is(")");
    if (grouping && only_words(inside)) return read_value(inside);
    if (grouping || parts.size() == 1) return read_value(tokens);
    Structure result{.kind = Kind::bracketed, .open = open.text.back(), .close = close.text.back()};
    for (const Span part : parts) result.parts.push_back(read(part));
    return result;
  }

  Structure read_matrix(Span tokens, Span inside) {
    static const std::vector<std::string> kinds = {"begin pmatrix", "begin bmatrix", "begin matrix", "begin Bmatrix"};
    if (std::find(kinds.begin(), kinds.end(), tokens.front().text) == kinds.end()) return text_of(tokens);
    Structure result{.kind = Kind::matrix};
    for (const Span row : split(inside, [](const Token& token) { return token.is("\\\\"); })) {
      if (row.empty()) continue;
      ++result.rows;
      for (const Span cell : split(row, [](const Token& token) { return token.is("&"); })) result.parts.push_back(read(cell));
    }
    return result;
  }

  // "52_8", "4210_{5}"
  static bool in_base(Span tokens) {
    if (tokens.size() < 3 || tokens[0].kind != Token::Kind::number || !tokens[1].is("_")) return false;
    const bool braced = tokens.size() == 5 && tokens[2].is("{") && tokens[4].is("}");
    return (tokens.size() == 3 || braced) && tokens[braced ? 3 : 2].kind == Token::Kind::number;
  }

  Structure read_value(Span tokens) {
    if (in_base(tokens)) return text_of(tokens);
    if (only_words(tokens)) return words(tokens);
    const auto [rest, unit] = take_unit(tokens);
    Structure result;
    if (rest.size() < tokens.size() && (enclosed(rest) || !rest.empty())) {
      result = enclosed(rest) ? read_brackets(rest) : leaf(rest);
    } else {
      result = leaf(tokens);
    }
    if (!unit.empty()) result.unit = unit;
    return result;
  }

  Structure words(Span tokens) {
    Structure result = text_of(tokens);
    const bool factors = tokens.size() == 1 && !tokens[0].quoted && tokens[0].text.size() <= 3;
    if (factors) result.expression = parse_expression(tokens);
    if (result.text.size() != 1) return result;
    const std::string written = plain(tokens);
    const auto letter = std::find_if(written.begin(), written.end(), [](char c) { return (c | 32) >= 'a' && (c | 32) <= 'z'; });
    if (letter == written.end()) return result;
    result.kind = Kind::value;
    result.text = *letter;
    result.expression = std::make_shared<Expression>(Expression{Expression::Op::symbol, 0, result.text});
    return result;
  }

  static Structure leaf(Span tokens) {
    Structure result;
    result.expression = parse_expression(tokens);
    if (!result.expression) return text_of(tokens);
    result.kind = Kind::value;
    result.text = plain(tokens);
    if (!has_plus_minus(*result.expression)) return result;
    Structure both{.kind = Kind::list, .parts = {result, result}};
    both.parts.back().sign = -1;
    return both;
  }

  int depth_ = 0;
};

}  // namespace structures

Structure read_structure(std::span<const Token> tokens) {
  return structures::Reader().read(tokens);
}

}  // namespace molt::answer
