// Regular expressions as tokenizer.json writes them (Oniguruma's syntax), matched by PCRE2.
#pragma once
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace molt::text {

// A compiled pattern; find() may be called from several threads at once.
//
// Where the two syntaxes differ the pattern is translated: \s, \w and \h mean Oniguruma's sets (White_Space; letters, marks,
// digits, connectors; hexadecimal digits), (?m) lets the dot match a newline, ^ and $ match at every line, \uHHHH is a code
// point. What has no counterpart (set intersections, nested sets) is a UserError.
class Regex {
 public:
  // `place` names the pattern in errors ("tokenizer.json: pre_tokenizer: pattern").
  Regex(std::string_view pattern, std::string place);

  // The first match that begins at or after `start` in valid UTF-8: its bounds in `begin` and `end`. A pattern that costs more
  // than a bounded number of steps is a UserError.
  bool find(std::string_view text, std::size_t start, std::size_t& begin, std::size_t& end) const;

 private:
  struct Code;
  std::shared_ptr<const Code> code_;
};

}  // namespace molt::text
