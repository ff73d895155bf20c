// Cuts normalized text into the pieces that a model tokenizes one by one.
#pragma once
#include <memory>
#include <string>

#include "base/json.h"
#include "text/pieces.h"

namespace molt::text {

class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  virtual void apply(Pieces& pieces) const = 0;
};

// From the `pre_tokenizer` of a tokenizer.json: ByteLevel, Split, Digits, Metaspace, Whitespace, WhitespaceSplit, Punctuation,
// Sequence.
std::unique_ptr<PreTokenizer> make_pre_tokenizer(const Json& json, const std::string& place);

}  // namespace molt::text
