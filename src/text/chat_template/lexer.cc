#include "text/chat_template/lexer.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstdlib>
#include <optional>

#include "base/error.h"
#include "text/chat_template/strings.h"

namespace molt::jinja {
namespace lexer_detail {

constexpr std::size_t npos = std::string_view::npos;

std::size_t skip_space(std::string_view text, std::size_t at) {
  while (at < text.size()) {
    std::size_t next = at;
    if (!is_space(text::next_code_point(text, next))) break;
    at = next;
  }
  return at;
}

bool is_name_byte(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || static_cast<unsigned char>(c) >= 0x80;
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

std::string without_underscores(std::string_view digits) {
  std::string out(digits);
  std::erase(out, '_');
  return out;
}

class Lexer {
 public:
  explicit Lexer(const Source& source) : source_(source), text_(source.text) {}

  std::vector<Token> run() {
    while (at_ < text_.size()) data();
    add(Token::Kind::end, text_.size());
    return std::move(tokens_);
  }

 private:
  template <class... Parts>
  [[noreturn]] void fail_at(std::size_t at, const Parts&... parts) const {
    fail(source_.place(at), ": ", parts...);
  }
  void add(Token::Kind kind, std::size_t at, std::string text = {}, Value number = {}) {
    tokens_.push_back({kind, at, std::move(text), std::move(number)});
  }

  // Data up to the next tag, and the tag.
  void data() {
    std::size_t tag = at_;
    while ((tag = text_.find('{', tag)) != npos) {
      if (tag + 1 < text_.size() && std::string_view("{%#").find(text_[tag + 1]) != npos) break;
      ++tag;
    }
    if (tag == npos) {
      add(Token::Kind::data, at_, std::string(text_.substr(at_)));
      at_ = text_.size();
      return;
    }
    const char kind = text_[tag + 1];
    const std::size_t begin = at_;
    at_ = tag + 2;
    const char sign = take_sign();
    add_data(begin, tag, sign, kind == '{');
    if (kind == '#') return comment(tag);
    if (kind == '{') return tag_body(tag, Token::Kind::print_begin, Token::Kind::print_end);
    if (const auto body = raw_begin()) return raw(tag, *body);
    tag_body(tag, Token::Kind::block_begin, Token::Kind::block_end);
  }

  char take_sign() {
    const bool has = at_ < text_.size() && (text_[at_] == '-' || text_[at_] == '+');
    return has ? text_[at_++] : ' ';
  }

  // The data before a tag: "-" takes all white space at its end, a block what stands before it on its own line.
  void add_data(std::size_t begin, std::size_t end, char sign, bool is_print) {
    std::string_view data = text_.substr(begin, end - begin);
    if (sign == '-') {
      data = strip(data, Side::right);
    } else if (sign != '+' && !is_print) {
      const std::size_t line = data.rfind('\n') + 1;
      if ((line > 0 || line_starts_) && skip_space(data, line) == data.size()) data = data.substr(0, line);
    }
    if (!data.empty()) add(Token::Kind::data, begin, std::string(data));
  }

  // Behind a tag that ends at `end`: "-" takes the white space, a block one line end unless "+" keeps it.
  void leave(std::size_t end, char sign, bool trims) {
    at_ = end;
    if (sign == '-') at_ = skip_space(text_, at_);
    if (sign == ' ' && trims && at_ < text_.size() && text_[at_] == '\n') ++at_;
    line_starts_ = text_[at_ - 1] == '\n';
  }

  void comment(std::size_t tag) {
    const std::size_t end = text_.find("#}", at_);
    if (end == npos) fail_at(tag, "found a comment without end, expected #}");
    const char before = end > at_ ? text_[end - 1] : ' ';
    leave(end + 2, before == '-' || before == '+' ? before : ' ', true);
  }

  // Where the body of a raw block begins, if one begins here: behind "raw" and "%}".
  std::optional<std::size_t> raw_begin() const {
    std::size_t at = skip_space(text_, at_);
    if (!text_.substr(at).starts_with("raw")) return std::nullopt;
    at = skip_space(text_, at + 3);
    if (text_.substr(at).starts_with("-%}")) return skip_space(text_, at + 3);
    return text_.substr(at).starts_with("%}") ? std::optional(at + 2) : std::nullopt;
  }

  void raw(std::size_t tag, std::size_t body) {
    line_starts_ = text_[body - 1] == '\n';
    for (std::size_t end = text_.find("{%", body); end != npos; end = text_.find("{%", end + 2)) {
      at_ = end + 2;
      const char before = take_sign();
      at_ = skip_space(text_, at_);
      if (!text_.substr(at_).starts_with("endraw")) continue;
      at_ = skip_space(text_, at_ + 6);
      const char after = take_sign();
      if (!text_.substr(at_).starts_with("%}")) continue;
      add_data(body, end, before, false);
      return leave(at_ + 2, after, true);
    }
    fail_at(tag, "found a raw block without end, expected {% endraw %}");
  }

  void tag_body(std::size_t tag, Token::Kind begin, Token::Kind end) {
    const std::string_view close = end == Token::Kind::block_end ? "%}" : "}}";
    add(begin, tag);
    std::string open;  // brackets that wait for their ends
    while (true) {
      at_ = skip_space(text_, at_);
      if (at_ >= text_.size()) fail_at(tag, "found a tag without end, expected ", close);
      if (open.empty() && close_tag(close, end)) return;
      token(open);
    }
  }

  bool close_tag(std::string_view close, Token::Kind kind) {
    const bool has_sign = text_[at_] == '-' || (text_[at_] == '+' && close == "%}");
    if (!text_.substr(at_ + has_sign).starts_with(close)) return false;
    add(kind, at_);
    leave(at_ + has_sign + 2, has_sign ? text_[at_] : ' ', close == "%}");
    return true;
  }

  void token(std::string& open) {
    const char c = text_[at_];
    if (is_digit(c)) return number();
    if (c == '"' || c == '\'') return literal();
    const std::size_t begin = at_;
    if (is_name_byte(c)) {
      while (at_ < text_.size() && is_name_byte(text_[at_])) ++at_;
      return add(Token::Kind::name, begin, std::string(text_.substr(begin, at_ - begin)));
    }
    constexpr std::string_view pairs[] = {"//", "**", "==", "!=", ">=", "<="};
    const auto* two = std::find(std::begin(pairs), std::end(pairs), text_.substr(at_, 2));
    const std::size_t size = two != std::end(pairs) ? 2 : 1;
    if (size == 1 && std::string_view("+-/*%~[](){}><=.:|,;").find(c) == npos)
      fail_at(at_, "found \"", c, "\", expected an expression");
    balance(c, open);
    at_ += size;
    add(Token::Kind::sign, begin, std::string(text_.substr(begin, size)));
  }

  void balance(char c, std::string& open) {
    constexpr std::string_view begins = "([{", ends = ")]}";
    if (begins.find(c) != npos) open += ends[begins.find(c)];
    if (ends.find(c) == npos) return;
    if (open.empty()) fail_at(at_, "found \"", c, "\" that closes nothing");
    if (open.back() != c) fail_at(at_, "found \"", c, "\", expected \"", open.back(), "\"");
    open.pop_back();
  }

  // Digits with single underscores between them.
  std::size_t digits(std::size_t at) const {
    while (at < text_.size() && (is_digit(text_[at]) || (text_[at] == '_' && at + 1 < text_.size() && is_digit(text_[at + 1]))))
      ++at;
    return at;
  }

  void number() {
    const std::size_t begin = at_;
    const auto prefix = static_cast<char>(at_ + 1 < text_.size() ? std::tolower(text_[at_ + 1]) : ' ');
    const int base = text_[at_] != '0' ? 10 : prefix == 'x' ? 16 : prefix == 'o' ? 8 : prefix == 'b' ? 2 : 10;
    if (base != 10) return whole(begin, base);
    std::size_t end = digits(at_);
    bool is_real = false;
    if (end + 1 < text_.size() && text_[end] == '.' && is_digit(text_[end + 1])) end = digits(end + 1), is_real = true;
    if (end < text_.size() && (text_[end] == 'e' || text_[end] == 'E')) {
      const std::size_t power = end + 1 + (end + 1 < text_.size() && (text_[end + 1] == '+' || text_[end + 1] == '-'));
      if (power < text_.size() && is_digit(text_[power])) end = digits(power), is_real = true;
    }
    // Behind a dot a number is an index: `x.0.1`.
    const bool after_dot = begin > 0 && text_[begin - 1] == '.';
    if (!is_real || after_dot) return whole(begin, 10);
    at_ = end;
    add(Token::Kind::real, begin, {}, std::strtod(without_underscores(text_.substr(begin, end - begin)).c_str(), nullptr));
  }

  void whole(std::size_t begin, int base) {
    if (base != 10) at_ += 2;
    const std::size_t first = at_;
    while (at_ < text_.size() && (std::isalnum(static_cast<unsigned char>(text_[at_])) || text_[at_] == '_') &&
           (base == 16 || is_digit(text_[at_]) || text_[at_] == '_')) {
      ++at_;
    }
    const std::string digits = without_underscores(text_.substr(first, at_ - first));
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
    const bool good = error == std::errc() && end == digits.data() + digits.size() && !(base == 10 && value && digits[0] == '0');
    if (!good) fail_at(begin, "found ", text_.substr(begin, at_ - begin), ", expected a whole number below 2^63");
    add(Token::Kind::integer, begin, {}, value);
  }

  void literal() {
    const std::size_t begin = at_++;
    std::string value;
    while (true) {
      if (at_ >= text_.size()) fail_at(begin, "found text without a closing quote");
      const char c = text_[at_++];
      if (c == text_[begin]) break;
      if (c != '\\') {
        value += c;
      } else if (at_ < text_.size()) {
        escape(value);
      }
    }
    add(Token::Kind::text, begin, std::move(value));
  }

  // What stands behind a backslash, as Python reads it.
  void escape(std::string& value) {
    const std::size_t begin = at_ - 1;
    const char c = text_[at_++];
    constexpr std::string_view names = "\\'\"abfnrtv", meanings = "\\'\"\a\b\f\n\r\t\v";
    if (c == '\n') return;
    if (names.find(c) != npos) {
      value += meanings[names.find(c)];
    } else if (c >= '0' && c <= '7') {
      --at_;
      code_point(begin, value, 1, 3, 8);
    } else if (c == 'x' || c == 'u' || c == 'U') {
      const std::size_t size = c == 'x' ? 2 : c == 'u' ? 4 : 8;
      code_point(begin, value, size, size, 16);
    } else if (c == 'N') {
      fail_at(begin, "found \\N, expected the character itself or \\u and its number");
    } else {
      value += '\\';
      --at_;
    }
  }

  void code_point(std::size_t begin, std::string& value, std::size_t least, std::size_t most, int base) {
    unsigned number = 0;
    const char* from = text_.data() + at_;
    const auto [end, error] = std::from_chars(from, from + std::min(most, text_.size() - at_), number, base);
    const auto size = static_cast<std::size_t>(end - from);
    const bool is_surrogate = number >= 0xD800 && number < 0xE000;
    if (error != std::errc() || size < least || number > 0x10FFFF || is_surrogate)
      fail_at(begin, "found an escape that names no character");
    text::append_code_point(static_cast<char32_t>(number), value);
    at_ += size;
  }

  const Source& source_;
  std::string_view text_;
  std::size_t at_ = 0;
  bool line_starts_ = true;  // what came before ends with a line end
  std::vector<Token> tokens_;
};

}  // namespace lexer_detail

Source::Source(std::string_view original, std::string the_name) : name(std::move(the_name)) {
  require(text::is_valid_utf8(original), name, ": found bytes that are no UTF-8, expected text");
  for (std::size_t i = 0; i < original.size(); ++i) {
    const bool is_return = original[i] == '\r';
    if (is_return && i + 1 < original.size() && original[i + 1] == '\n') ++i;
    text += is_return ? '\n' : original[i];
  }
  if (text.ends_with('\n')) text.pop_back();
}

std::string Source::place(std::size_t offset) const {
  const std::string_view before = std::string_view(text).substr(0, offset);
  const std::size_t line = before.rfind('\n') + 1;
  return concat(name, ":", std::count(before.begin(), before.end(), '\n') + 1, ":", count_characters(before.substr(line)) + 1);
}

std::vector<Token> tokenize(const Source& source) {
  return lexer_detail::Lexer(source).run();
}

}  // namespace molt::jinja
