// Tokens that are found in the text as they stand, before the model sees it: special ones ("</s>") and a user's own.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "text/model.h"
#include "text/normalizer.h"
#include "text/pieces.h"
#include "text/token_tree.h"

namespace molt::text {

class AddedTokens {
 public:
  struct Token {
    std::string content;
    std::int32_t id = 0;
    bool single_word = false;  // only where no letter or digit touches it
    bool lstrip = false;       // takes the white space before it
    bool rstrip = false;       // takes the white space behind it
    bool normalized = true;    // looked for in the normalized text, in its own normalized form
    bool special = false;      // decode() can leave it out
  };
  // A stretch of text between tokens (id -1), or a token.
  struct Section {
    Range range;
    std::int32_t id;
  };

  AddedTokens() = default;
  // From the `added_tokens` of a tokenizer.json. A token that the model has keeps the model's id; others are numbered upwards
  // from the model's size, in order, as `tokenizers` does whatever the file says; a warning tells where the two differ.
  AddedTokens(const Json& list, const std::string& place, const TokenModel& model, const Normalizer* normalizer);

  // Sections of the user's text, by the tokens that are not normalized.
  std::vector<Section> find_in_input(std::string_view text) const { return find(text, in_input_); }
  // Sections of a normalized stretch, by the tokens that are.
  std::vector<Section> find_in_normalized(std::string_view text) const { return find(text, in_normalized_); }

  const Token* token(std::int32_t id) const;
  const Vocabulary& vocabulary() const { return vocabulary_; }
  // What decoders get for the id: its normalized form where it has one. Null where the id is none of these.
  const std::string* decoded(std::int32_t id) const { return decoded_.token(id); }

 private:
  std::vector<Section> find(std::string_view text, const TokenTree& tree) const;

  std::vector<Token> tokens_;
  Vocabulary vocabulary_, decoded_;
  std::unordered_map<std::int32_t, std::size_t> by_id_;
  TokenTree in_input_, in_normalized_;
};

}  // namespace molt::text
