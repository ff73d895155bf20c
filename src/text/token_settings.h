// What the files beside a tokenizer.json say about single tokens, read as transformers reads them.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "base/files.h"
#include "text/added_tokens.h"

namespace molt::text {

struct TokenSettings {
  // Tokens by what they are for ("bos_token", "</s>"), templates' own ones ("image_token") behind the usual ones.
  std::vector<std::pair<std::string, std::string>> named;
  // Tokens that tokenizer.json may lack, in the order in which they are added. Those of added_tokens_decoder have an id and count
  // more than what tokenizer.json says of them; for the others it is -1.
  std::vector<AddedTokens::Token> added;

  // Null where no file names one.
  const std::string* find(const std::string& name) const;
};

// From tokenizer_config.json; special_tokens_map.json and added_tokens.json count where that has no added_tokens_decoder, as in
// folders of early versions, and the former outranks it. UserError for what is broken.
TokenSettings read_token_settings(const fs::path& folder);

}  // namespace molt::text
