// Tokens that are found in the text as they stand, before the model sees it: special ones ("</s>") and a user's own.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <unordered_set>
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
    std::int32_t id = -1;      // -1: not known yet
    bool single_word = false;  // only where no letter or digit touches it
    bool lstrip = false;       // takes the white space before it
    bool rstrip = false;       // takes the white space behind it
    bool normalized = true;    // looked for in the normalized text, in its own normalized form
    bool special = false;      // decode() can leave it out

    bool operator==(const Token&) const = default;
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

  // Tokens of other files (token_settings.h), `place` being their folder, as transformers adds them: one with an id changes how a
  // token of the same text is found, one without is for texts that no other token has.
  void extend(const std::vector<Token>& tokens, const std::string& place, const TokenModel& model, const Normalizer* normalizer);

  // Sections of the user's text, by the tokens that are not normalized.
  std::vector<Section> find_in_input(std::string_view text) const { return find(text, in_input_); }
  // Sections of a normalized stretch, by the tokens that are.
  std::vector<Section> find_in_normalized(std::string_view text) const { return find(text, in_normalized_); }

  const Token* token(std::int32_t id) const;
  const Vocabulary& vocabulary() const { return vocabulary_; }
  // What decoders get for the id: its normalized form where it has one. Null where the id is none of these.
  const std::string* decoded(std::int32_t id) const { return decoded_.token(id); }
  // Whether a text that decoders get is that of a special token; of normalized ones, whose text may have changed, it need not be.
  bool is_special(const std::string& decoded) const { return special_.contains(decoded); }

 private:
  std::vector<Section> find(std::string_view text, const TokenTree& tree) const;
  void add(Token token, const std::string& place, const TokenModel& model);
  void index(const Normalizer* normalizer);

  std::map<std::int32_t, Token> tokens_;
  Vocabulary vocabulary_, decoded_;
  std::unordered_set<std::string> special_;  // the texts of all that were ever described as special
  TokenTree in_input_, in_normalized_;
};

// A token as tokenizer.json describes it, its id apart.
AddedTokens::Token parse_added_token(const Json& json, const std::string& place);

}  // namespace molt::text
