#include "evaluate/answer/tokens.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

namespace molt::answer {
namespace lexing {

constexpr std::size_t kMostTokens = 1000;

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

// Characters beyond ASCII, and commands, by what they mean here.
const std::vector<std::pair<std::string_view, std::string_view>> kUnicode = {
    {"−", "-"},         {"–", "-"},       {"×", "*"},           {"·", "*"},        {"⋅", "*"},           {"÷", "/"},
    {"π", "\\pi "},     {"√", "\\sqrt "}, {"∞", "\\infty "},    {"∪", "\\cup "},   {"≤", "\\le "},       {"≥", "\\ge "},
    {"≠", "\\ne "},     {"±", "\\pm "},   {"∓", "\\mp "},       {"²", "^2 "},      {"³", "^3 "},         {"½", "\\frac{1}{2}"},
    {"°", "\\degree "}, {"∈", "\\in "},   {"∅", "\\emptyset "}, {"θ", "\\theta "}, {"α", "\\alpha "},    {"β", "\\beta "},
    {"λ", "\\lambda "}, {"\u00a0", " "},  {"\u2009", " "},      {"\u202f", " "},   {"ℝ", "\\mathbb{R}"}, {"≈", "\\approx "}};

const std::map<std::string_view, std::string_view> kMarks = {
    {"cdot", "*"},      {"times", "*"},  {"ast", "*"},    {"div", "/"},      {"pm", "+-"},       {"mp", "-+"},
    {"le", "<="},       {"leq", "<="},   {"ge", ">="},    {"geq", ">="},     {"leqslant", "<="}, {"geqslant", ">="},
    {"lt", "<"},        {"gt", ">"},     {"ne", "!="},    {"neq", "!="},     {"approx", "="},    {"lbrace", "\\{"},
    {"rbrace", "\\}"},  {"lbrack", "["}, {"rbrack", "]"}, {"langle", "("},   {"rangle", ")"},    {"vert", "|"},
    {"lvert", "|"},     {"rvert", "|"},  {"mid", "|"},    {"degree", "deg"}, {"circ", "deg"},    {"equiv", "="},
    {"newline", "\\\\"}};

const std::set<std::string_view> kIgnored = {"left", "right", "displaystyle", "textstyle", "quad",    "qquad",
                                             "big",  "Big",   "bigg",         "Bigg",      "bigl",    "bigr",
                                             "Bigl", "Bigr",  "limits",       "thinspace", "enspace", "mathstrut"};

const std::set<std::string_view> kTextCommands = {"text",   "mbox", "textbf",     "textit", "textrm", "mathrm", "operatorname",
                                                  "mathbf", "hbox", "textnormal", "mathit", "texttt", "rm"};

const std::set<std::string_view> kPlainNames = {
    "pi",    "sqrt", "cbrt",  "sin",   "cos",   "tan",    "cot",   "sec",   "csc",      "arcsin", "arccos", "arctan",
    "sinh",  "cosh", "tanh",  "ln",    "log",   "exp",    "infty", "inf",   "infinity", "abs",    "and",    "or",
    "alpha", "beta", "gamma", "delta", "theta", "lambda", "phi",   "omega", "sigma",    "cup",    "mu"};

const std::map<std::string_view, std::string_view> kSameNames = {
    {"dfrac", "frac"},          {"tfrac", "frac"},   {"cfrac", "frac"},   {"inf", "infty"},
    {"infinity", "infty"},      {"dbinom", "binom"}, {"tbinom", "binom"}, {"bar", "overline"},
    {"varnothing", "emptyset"}, {"lg", "log"},       {"union", "cup"},    {"bigcup", "cup"},
    {"varphi", "phi"},          {"lor", "or"},       {"land", "and"}};

class Lexer {
 public:
  Lexer(std::string text, bool group) : text_(std::move(text)), group_(group) { currency_ = unescaped_dollars() % 2 == 1; }

  std::optional<Tokens> run() {
    while (at_ < text_.size()) {
      if (result_.list.size() > kMostTokens) return std::nullopt;
      step();
    }
    while (!result_.list.empty() && (result_.list.back().is(".") || result_.list.back().is(","))) result_.list.pop_back();
    return std::move(result_);
  }

 private:
  using Kind = Token::Kind;

  char peek(std::size_t ahead = 0) const { return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0'; }

  std::size_t unescaped_dollars() const {
    std::size_t count = 0;
    for (std::size_t i = 0; i < text_.size(); ++i) count += text_[i] == '$' && (i == 0 || text_[i - 1] != '\\');
    return count;
  }

  void add(Kind kind, std::string text, bool quoted = false) {
    result_.list.push_back({kind, std::move(text), std::exchange(spaced_, false), quoted});
  }

  void step() {
    const char c = peek();
    if (is_space(c) || c == '~') {
      spaced_ = true;
      ++at_;
    } else if (is_digit(c) || (c == '.' && is_digit(peek(1)))) {
      number();
    } else if (is_letter(c)) {
      letters();
    } else if (c == '\\') {
      command();
    } else if (c == '$') {
      ++at_;
      if (currency_) add(Kind::mark, "$");
    } else if ((c == '<' || c == '>' || c == '!') && peek(1) == '=') {
      add(Kind::mark, std::string(1, c) + "=");
      at_ += 2;
    } else if (c == '+' && peek(1) == '/' && peek(2) == '-') {
      add(Kind::mark, "+-");
      at_ += 3;
    } else if (c == '*' && peek(1) == '*') {
      add(Kind::mark, "^");
      at_ += 2;
    } else {
      add(Kind::mark, std::string(1, c));
      ++at_;
    }
  }

  std::size_t digits_from(std::size_t i) const {
    std::size_t count = 0;
    while (i + count < text_.size() && is_digit(text_[i + count])) ++count;
    return count;
  }

  // Whether a separator of thousands stands at `i`: its length, 0 if there is none. ",\!" and "{,}" can be nothing else.
  std::size_t separator(std::size_t i, bool& sure) const {
    for (const std::string_view mark : {",\\!", "{,}", "\\,"}) {
      if (std::string_view(text_).substr(i).starts_with(mark)) {
        sure = true;
        std::size_t length = mark.size();
        while (i + length < text_.size() && text_[i + length] == ' ') ++length;
        return length;
      }
    }
    const bool found = i < text_.size() && (text_[i] == ' ' || (text_[i] == ',' && group_));
    if (found && text_[i] == ' ') sure = true;
    return found ? 1 : 0;
  }

  void number() {
    std::string digits = text_.substr(at_, digits_from(at_));
    at_ += digits.size();
    for (bool first = true; digits.size() <= 3 || !first; first = false) {
      bool sure = false;
      const std::size_t gap = separator(at_, sure);
      if (digits.empty() || gap == 0 || digits_from(at_ + gap) != 3) break;
      const std::size_t behind = at_ + gap + 3;  // "1 234/567" is a mixed number
      if (text_[at_] == ' ' && behind < text_.size() && text_[behind] == '/') break;
      result_.grouped = result_.grouped || !sure;
      digits += text_.substr(at_ + gap, 3);
      at_ += gap + 3;
    }
    if (peek() == '.' && (is_digit(peek(1)) || !is_letter(peek(1)))) {
      ++at_;
      const std::size_t count = digits_from(at_);
      if (digits.empty()) digits = "0";
      digits += "." + text_.substr(at_, count);
      at_ += count;
    }
    if (peek() == 'e' || peek() == 'E') {
      const std::size_t sign = peek(1) == '-' || peek(1) == '+' ? 1 : 0;
      if (const std::size_t count = digits_from(at_ + 1 + sign); count > 0 && count < 6) {
        digits += "e" + std::string(peek(1) == '-' ? "-" : "") + text_.substr(at_ + 1 + sign, count);
        at_ += 1 + sign + count;
      }
    }
    add(Kind::number, std::move(digits));
  }

  void letters() {
    std::size_t end = at_;
    while (end < text_.size() && is_letter(text_[end])) ++end;
    std::string run = text_.substr(at_, end - at_);
    at_ = end;
    std::string lower = run;
    std::transform(lower.begin(), lower.end(), lower.begin(),
                   [](char c) { return is_letter(c) ? static_cast<char>(c | 32) : c; });
    if (kPlainNames.count(lower)) return add_name(lower);
    if (run.size() > 1) return add(Kind::word, std::move(run));
    add(Kind::symbol, std::move(run));
  }

  void add_name(const std::string& name) {
    const auto same = kSameNames.find(name);
    add(Kind::name, same == kSameNames.end() ? name : std::string(same->second));
  }

  // The braced group at the position, without its braces; what is not closed goes to the end.
  std::string braced() {
    while (is_space(peek())) ++at_;
    if (peek() != '{') return "";
    std::size_t depth = 0, i = at_;
    for (; i < text_.size(); ++i) {
      if (text_[i] == '{') ++depth;
      if (text_[i] == '}' && --depth == 0) break;
    }
    std::string inside = text_.substr(at_ + 1, i - at_ - 1);
    at_ = std::min(text_.size(), i + 1);
    return inside;
  }

  void command() {
    const char next = peek(1);
    if (!is_letter(next)) {
      at_ += next ? 2 : 1;
      if (next == '{' || next == '}') return add(Kind::mark, std::string("\\") + next);
      if (next == '\\') return add(Kind::mark, "\\\\");
      if (next == '%' || next == '$') return add(Kind::mark, std::string(1, next));
      if (next == '|') return add(Kind::mark, "|");
      if (next == ' ' || next == ',' || next == ';' || next == ':') spaced_ = true;
      return;
    }
    std::size_t end = at_ + 1;
    while (end < text_.size() && is_letter(text_[end])) ++end;
    const std::string name = text_.substr(at_ + 1, end - at_ - 1);
    at_ = end;
    if (kIgnored.count(name)) return;
    if (const auto mark = kMarks.find(name); mark != kMarks.end()) return add(Kind::mark, std::string(mark->second));
    if (kTextCommands.count(name)) return add_text(braced());
    if (name == "mathbb" || name == "begin" || name == "end")
      return add(Kind::name, name + " " + (name == "mathbb" ? real() : braced()));
    add_name(name);
  }

  std::string real() {
    while (is_space(peek())) ++at_;
    if (peek() == '{') return braced();
    return at_ < text_.size() ? std::string(1, text_[at_++]) : "";
  }

  void add_text(const std::string& inside) {
    const auto first = inside.find_first_not_of(" \t\n~\\");
    if (first == std::string::npos) {
      spaced_ = true;
      return;
    }
    if (first > 0) spaced_ = true;
    const std::string trimmed = inside.substr(first, inside.find_last_not_of(" \t\n~\\,") - first + 1);
    if (trimmed == "and" || trimmed == "or") return add(Kind::name, trimmed);
    if (trimmed == "%") return add(Kind::mark, "%");
    add(Kind::word, trimmed, true);
  }

  std::string text_;
  bool group_;
  bool currency_ = false;
  bool spaced_ = false;
  std::size_t at_ = 0;
  Tokens result_;
};

}  // namespace lexing

std::optional<Tokens> tokenize(std::string_view text, bool group) {
  std::string ascii;
  for (std::size_t i = 0; i < text.size();) {
    const auto found = std::find_if(lexing::kUnicode.begin(), lexing::kUnicode.end(),
                                    [&](const auto& entry) { return text.substr(i).starts_with(entry.first); });
    if (found == lexing::kUnicode.end()) {
      ascii += text[i++];
    } else {
      ascii += found->second;
      i += found->first.size();
    }
  }
  return lexing::Lexer(std::move(ascii), group).run();
}

}  // namespace molt::answer
