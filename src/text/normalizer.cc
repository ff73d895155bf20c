#include "text/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>

#include "text/charsmap.h"
#include "text/component.h"
#include "text/pieces.h"
#include "text/unicode.h"

namespace molt::text {
namespace normalizers {

// NFC, NFD, NFKC, NFKD (Unicode Standard Annex 15).
class UnicodeForm : public Normalizer {
 public:
  UnicodeForm(bool compose, bool compatible) : compose_(compose), compatible_(compatible) {}

  void apply(std::string& text) const override {
    if (is_in_form(text)) return;
    const int options =
        UTF8PROC_STABLE | (compose_ ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) | (compatible_ ? UTF8PROC_COMPAT : 0);
    utf8proc_uint8_t* made = nullptr;
    const auto length = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                     static_cast<utf8proc_ssize_t>(text.size()), &made, static_cast<utf8proc_option_t>(options));
    const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(made, &std::free);
    require(length >= 0, "cannot normalize a text: ", utf8proc_errmsg(length));
    text.assign(reinterpret_cast<const char*>(made), static_cast<std::size_t>(length));
  }

 private:
  // Below U+0300 everything is composed; ASCII is in every form. The bytes 0xCC and above begin U+0300 and above.
  bool is_in_form(std::string_view text) const {
    const unsigned char limit = compose_ && !compatible_ ? 0xCC : 0x80;
    return std::all_of(text.begin(), text.end(), [limit](char byte) { return static_cast<unsigned char>(byte) < limit; });
  }

  bool compose_, compatible_;
};

class Prepend : public Normalizer {
 public:
  explicit Prepend(std::string prefix) : prefix_(std::move(prefix)) {}
  void apply(std::string& text) const override {
    if (!text.empty()) text.insert(0, prefix_);
  }

 private:
  std::string prefix_;
};

class Replace : public Normalizer {
 public:
  Replace(Pattern pattern, std::string by) : pattern_(std::move(pattern)), by_(std::move(by)) {}
  void apply(std::string& text) const override { pattern_.replace(text, by_); }

 private:
  Pattern pattern_;
  std::string by_;
};

// Each character by itself: the end of a word makes no difference to a Σ.
class Lowercase : public Normalizer {
 public:
  void apply(std::string& text) const override {
    std::string lower;
    lower.reserve(text.size());
    for (std::size_t position = 0; position < text.size();) {
      const char32_t c = next_code_point(text, position);
      append_code_point(c == U'\u0130' ? U'i' : static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))), lower);
      if (c == U'\u0130') append_code_point(U'\u0307', lower);  // the only letter whose small form is two characters
    }
    text = std::move(lower);
  }
};

class Strip : public Normalizer {
 public:
  Strip(bool left, bool right) : left_(left), right_(right) {}
  void apply(std::string& text) const override {
    if (right_) {
      while (!text.empty()) {
        std::size_t position = last_character(text);
        const std::size_t begin = position;
        if (!is_whitespace(next_code_point(text, position))) break;
        text.resize(begin);
      }
    }
    if (left_) {
      std::size_t begin = 0, position = 0;
      while (position < text.size() && is_whitespace(next_code_point(text, position))) begin = position;
      text.erase(0, begin);
    }
  }

 private:
  bool left_, right_;
};

// Drops every mark; an accent that is part of its letter has to be taken apart before (NFD, NFKD).
class StripAccents : public Normalizer {
 public:
  void apply(std::string& text) const override {
    std::string kept;
    kept.reserve(text.size());
    for (std::size_t position = 0; position < text.size();) {
      const std::size_t begin = position;
      if (!is_mark(next_code_point(text, position))) kept.append(text, begin, position - begin);
    }
    text = std::move(kept);
  }
};

class Precompiled : public Normalizer {
 public:
  explicit Precompiled(Charsmap map) : map_(std::move(map)) {}
  void apply(std::string& text) const override { map_.apply(text); }

 private:
  Charsmap map_;
};

class Sequence : public Normalizer {
 public:
  explicit Sequence(std::vector<std::unique_ptr<Normalizer>> parts) : parts_(std::move(parts)) {}
  void apply(std::string& text) const override {
    for (const auto& part : parts_) part->apply(text);
  }

 private:
  std::vector<std::unique_ptr<Normalizer>> parts_;
};

using Made = std::unique_ptr<Normalizer>;

template <bool compose, bool compatible>
Made make_form(const Json&, const std::string&) {
  return std::make_unique<UnicodeForm>(compose, compatible);
}

Made make_prepend(const Json& json, const std::string& place) {
  return std::make_unique<Prepend>(get<std::string>(json, "prepend", place));
}

Made make_replace(const Json& json, const std::string& place) {
  return std::make_unique<Replace>(Pattern(json, place), get<std::string>(json, "content", place));
}

Made make_lowercase(const Json&, const std::string&) {
  return std::make_unique<Lowercase>();
}

Made make_strip_accents(const Json&, const std::string&) {
  return std::make_unique<StripAccents>();
}

Made make_strip(const Json& json, const std::string& place) {
  return std::make_unique<Strip>(get<bool>(json, "strip_left", place), get<bool>(json, "strip_right", place));
}

Made make_precompiled(const Json& json, const std::string& place) {
  constexpr const char* key = "precompiled_charsmap";
  return std::make_unique<Precompiled>(Charsmap(get<std::string>(json, key, place), concat(place, ": ", key)));
}

Made make_sequence(const Json& json, const std::string& place) {
  return std::make_unique<Sequence>(make_list(json, "normalizers", place, make_normalizer));
}

}  // namespace normalizers

std::unique_ptr<Normalizer> make_normalizer(const Json& json, const std::string& place) {
  return make_component<normalizers::Made>(json, place,
                                           {{"NFC", normalizers::make_form<true, false>},
                                            {"NFD", normalizers::make_form<false, false>},
                                            {"NFKC", normalizers::make_form<true, true>},
                                            {"NFKD", normalizers::make_form<false, true>},
                                            {"Prepend", normalizers::make_prepend},
                                            {"Replace", normalizers::make_replace},
                                            {"Lowercase", normalizers::make_lowercase},
                                            {"Strip", normalizers::make_strip},
                                            {"StripAccents", normalizers::make_strip_accents},
                                            {"Precompiled", normalizers::make_precompiled},
                                            {"Sequence", normalizers::make_sequence}});
}

}  // namespace molt::text
