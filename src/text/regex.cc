#include "text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <cstdint>
#include <new>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"

namespace molt::text {
namespace regex {

constexpr std::size_t longest_pattern = 1 << 16;
constexpr std::uint32_t most_steps = 10'000'000, most_heap_kibibytes = 64 * 1024;
constexpr std::size_t first_stack = 32 * 1024, largest_stack = 8 * 1024 * 1024;

// A pattern as messages show it: on one line, its beginning if it is long.
std::string shown(std::string_view pattern) {
  constexpr std::size_t most = 100;
  return to_line(Json(std::string(pattern.substr(0, most)))) + (pattern.size() > most ? "…" : "");
}

// Oniguruma's pattern in PCRE2's syntax. One pass that knows three contexts: plain, inside [ ], and the flags after "(?".
class Translation {
 public:
  Translation(std::string_view pattern, const std::string& place) : in_(pattern), place_(place) {
    while (at_ < in_.size()) step();
  }
  std::string result() && { return std::move(out_); }

 private:
  bool looking_at(std::string_view text) const { return in_.substr(at_).starts_with(text); }

  void step() {
    const char c = in_[at_];
    if (c == '\\') {
      escape();
    } else if (in_set_) {
      set_character();
    } else if (looking_at("(?")) {
      group();
    } else if (c == '[') {
      open_set();
    } else {
      copy(1);
    }
  }

  void copy(std::size_t characters) {
    out_ += in_.substr(at_, characters);
    at_ += characters;
  }

  void open_set() {
    in_set_ = true;
    copy(looking_at("[^") ? 2 : 1);
    if (looking_at("]")) copy(1);  // a bracket that comes first stands for itself
  }

  void set_character() {
    if (looking_at("[:")) {
      const auto end = in_.find(":]", at_);
      require(end != in_.npos, place_, ": found [: without :] in ", shown(in_));
      copy(end + 2 - at_);
      return;
    }
    require(in_[at_] != '[' && !looking_at("&&"), place_, ": found a set inside a set in ", shown(in_),
            ", expected a pattern without set operations");
    if (in_[at_] == ']') in_set_ = false;
    copy(1);
  }

  void escape() {
    const char letter = at_ + 1 < in_.size() ? in_[at_ + 1] : '\0';
    switch (letter) {
      case 's':
        return replace(2, "\\p{White_Space}");
      case 'S':
        return replace(2, "\\P{White_Space}");
      case 'w':
        return replace(2, in_set_ ? "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}" : "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}]");
      case 'W':
        require(!in_set_, place_, ": found \\W inside a set in ", shown(in_), ", expected it outside");
        return replace(2, "[^\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}]");
      case 'h':
        return replace(2, in_set_ ? "0-9a-fA-F" : "[0-9a-fA-F]");
      case 'u':
        if (at_ + 6 <= in_.size()) return replace(6, "\\x{" + std::string(in_.substr(at_ + 2, 4)) + "}");
        break;
      default:
        break;
    }
    copy(2);
  }

  void replace(std::size_t characters, std::string_view by) {
    out_ += by;
    at_ += characters;
  }

  // "(?imx-imx:" and "(?imx-imx)": Oniguruma's m is PCRE2's s.
  void group() {
    copy(2);
    const auto end = in_.find_first_not_of("imx-", at_);
    if (end == in_.npos || (in_[end] != ':' && in_[end] != ')')) return;
    for (; at_ < end; ++at_) out_ += in_[at_] == 'm' ? 's' : in_[at_];
  }

  std::string_view in_;
  const std::string& place_;
  std::string out_;
  std::size_t at_ = 0;
  bool in_set_ = false;
};

// What one thread needs for matching, whatever the pattern.
struct MatchSpace {
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(first_stack, largest_stack, nullptr);

  MatchSpace() {
    if (!context || !data || !stack) throw std::bad_alloc();
    pcre2_set_match_limit(context, most_steps);
    pcre2_set_heap_limit(context, most_heap_kibibytes);
    pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~MatchSpace() {
    pcre2_jit_stack_free(stack);
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
  }
  MatchSpace(const MatchSpace&) = delete;
  MatchSpace& operator=(const MatchSpace&) = delete;
};

std::string error_text(int code) {
  PCRE2_UCHAR buffer[256];
  pcre2_get_error_message(code, buffer, sizeof buffer);
  return reinterpret_cast<const char*>(buffer);
}

}  // namespace regex

struct Regex::Code {
  Code(pcre2_code* code_in, std::string place_in) : code(code_in), place(std::move(place_in)) {
    compiled = pcre2_jit_compile(code, PCRE2_JIT_COMPLETE) == 0;
  }
  ~Code() { pcre2_code_free(code); }
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;

  pcre2_code* code;
  std::string place;
  bool compiled;  // to machine code
};

Regex::Regex(std::string_view pattern, std::string place) {
  require(pattern.size() <= regex::longest_pattern, place, ": found a pattern of ", pattern.size(), " bytes, expected at most ",
          regex::longest_pattern);
  const std::string translated = regex::Translation(pattern, place).result();
  int error = 0;
  std::size_t offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                                   PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error, &offset, nullptr);
  require(code != nullptr, place, ": cannot read the pattern ", regex::shown(translated), " at ", offset, ": ",
          regex::error_text(error));
  code_ = std::make_shared<const Code>(code, std::move(place));
}

bool Regex::find(std::string_view text, std::size_t start, std::size_t& begin, std::size_t& end) const {
  thread_local regex::MatchSpace space;
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const int found = code_->compiled
                        ? pcre2_jit_match(code_->code, subject, text.size(), start, 0, space.data, space.context)
                        : pcre2_match(code_->code, subject, text.size(), start, PCRE2_NO_UTF_CHECK, space.data, space.context);
  if (found == PCRE2_ERROR_NOMATCH) return false;
  // 0 says that there were groups beyond the whole match; they are not asked for.
  require(found >= 0, code_->place, ": the pattern cannot be matched against this text: ", regex::error_text(found));
  const std::size_t* bounds = pcre2_get_ovector_pointer(space.data);
  begin = bounds[0], end = bounds[1];
  // \K inside a lookahead can put the beginning behind the end.
  require(begin <= end, code_->place, ": the pattern matches backwards");
  return true;
}

}  // namespace molt::text
