#include "text/pre_tokenizer.h"

#include "text/byte_level.h"
#include "text/component.h"
#include "text/metaspace.h"

namespace molt::text {
namespace pre_tokenizers {

// GPT-2's words: contractions, a word, number or other run with the space before it, the spaces that are left.
constexpr std::string_view gpt2_words = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
// \w as the Rust library `regex` has it, joiners included; the rest that is no space.
constexpr std::string_view words_and_symbols =
    R"([\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{200C}\x{200D}]+|[^\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{200C}\x{200D}\s]+)";

void invert(std::vector<Stretch>& stretches) {
  for (auto& stretch : stretches) stretch.match = !stretch.match;
}

class ByteLevel : public PreTokenizer {
 public:
  ByteLevel(bool add_prefix_space, bool use_regex, const std::string& place) : add_prefix_space_(add_prefix_space) {
    if (use_regex) words_.emplace(Regex(gpt2_words, place));
  }

  void apply(Pieces& pieces) const override {
    if (add_prefix_space_) {
      rewrite_pieces(pieces, [](std::string_view piece, bool, std::string& out) {
        if (piece.front() != ' ') out += ' ';
        out += piece;
      });
    }
    if (words_) {
      split_pieces(pieces, Behavior::isolated,
                   [this](std::string_view piece, std::vector<Stretch>& out) { words_->cut(piece, out); });
    }
    rewrite_pieces(pieces, [](std::string_view piece, bool, std::string& out) { append_byte_level(piece, out); });
  }

 private:
  bool add_prefix_space_;
  std::optional<Pattern> words_;
};

class Split : public PreTokenizer {
 public:
  Split(Pattern pattern, Behavior behavior, bool inverted)
      : pattern_(std::move(pattern)), behavior_(behavior), inverted_(inverted) {}

  void apply(Pieces& pieces) const override {
    split_pieces(pieces, behavior_, [this](std::string_view piece, std::vector<Stretch>& out) {
      pattern_.cut(piece, out);
      if (inverted_) invert(out);
    });
  }

 private:
  Pattern pattern_;
  Behavior behavior_;
  bool inverted_;
};

// Digits, Punctuation, WhitespaceSplit: every character with a property is a match.
class SplitCharacters : public PreTokenizer {
 public:
  SplitCharacters(bool (*property)(char32_t), Behavior behavior) : property_(property), behavior_(behavior) {}

  void apply(Pieces& pieces) const override {
    split_pieces(pieces, behavior_,
                 [this](std::string_view piece, std::vector<Stretch>& out) { cut_characters(piece, out, property_); });
  }

 private:
  bool (*property_)(char32_t);
  Behavior behavior_;
};

class SplitMetaspace : public PreTokenizer {
 public:
  explicit SplitMetaspace(Metaspace options) : options_(std::move(options)) {
    std::size_t position = 0;
    mark_ = next_code_point(options_.mark, position);
  }

  void apply(Pieces& pieces) const override {
    rewrite_pieces(pieces, [this](std::string_view piece, bool first, std::string& out) {
      const bool marked = piece.front() == ' ' || piece.starts_with(options_.mark);
      const bool wanted =
          options_.prepend == Metaspace::Prepend::always || (options_.prepend == Metaspace::Prepend::first && first);
      if (wanted && !marked) out += options_.mark;
      for (const char byte : piece) {
        if (byte == ' ')
          out += options_.mark;
        else
          out += byte;
      }
    });
    if (!options_.split) return;
    split_pieces(pieces, Behavior::merged_with_next, [this](std::string_view piece, std::vector<Stretch>& out) {
      cut_characters(piece, out, [this](char32_t c) { return c == mark_; });
    });
  }

 private:
  Metaspace options_;
  char32_t mark_;
};

class Sequence : public PreTokenizer {
 public:
  explicit Sequence(std::vector<std::unique_ptr<PreTokenizer>> parts) : parts_(std::move(parts)) {}
  void apply(Pieces& pieces) const override {
    for (const auto& part : parts_) part->apply(pieces);
  }

 private:
  std::vector<std::unique_ptr<PreTokenizer>> parts_;
};

using Made = std::unique_ptr<PreTokenizer>;

Made make_byte_level(const Json& json, const std::string& place) {
  return std::make_unique<ByteLevel>(get_or(json, "add_prefix_space", true, place), get_or(json, "use_regex", true, place),
                                     place);
}

Made make_split(const Json& json, const std::string& place) {
  return std::make_unique<Split>(Pattern(json, place),
                                 parse_behavior(get<std::string>(json, "behavior", place), place + ": behavior"),
                                 get_or(json, "invert", false, place));
}

Made make_digits(const Json& json, const std::string& place) {
  return std::make_unique<SplitCharacters>(
      is_numeric, get_or(json, "individual_digits", false, place) ? Behavior::isolated : Behavior::contiguous);
}

Made make_punctuation(const Json& json, const std::string& place) {
  return std::make_unique<SplitCharacters>(
      is_punctuation, parse_behavior(get_or<std::string>(json, "behavior", "Isolated", place), place + ": behavior"));
}

Made make_metaspace(const Json& json, const std::string& place) {
  return std::make_unique<SplitMetaspace>(Metaspace(json, place));
}

Made make_whitespace(const Json&, const std::string& place) {
  return std::make_unique<Split>(Pattern(Regex(words_and_symbols, place)), Behavior::removed, true);
}

Made make_whitespace_split(const Json&, const std::string&) {
  return std::make_unique<SplitCharacters>(is_whitespace, Behavior::removed);
}

Made make_sequence(const Json& json, const std::string& place) {
  return std::make_unique<Sequence>(make_list(json, "pretokenizers", place, make_pre_tokenizer));
}

}  // namespace pre_tokenizers

std::unique_ptr<PreTokenizer> make_pre_tokenizer(const Json& json, const std::string& place) {
  return make_component<pre_tokenizers::Made>(json, place,
                                              {{"ByteLevel", pre_tokenizers::make_byte_level},
                                               {"Split", pre_tokenizers::make_split},
                                               {"Digits", pre_tokenizers::make_digits},
                                               {"Metaspace", pre_tokenizers::make_metaspace},
                                               {"Whitespace", pre_tokenizers::make_whitespace},
                                               {"WhitespaceSplit", pre_tokenizers::make_whitespace_split},
                                               {"Punctuation", pre_tokenizers::make_punctuation},
                                               {"Sequence", pre_tokenizers::make_sequence}});
}

}  // namespace molt::text
