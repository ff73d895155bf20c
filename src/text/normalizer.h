// What is done to the text before it is cut: Unicode forms, replacements, a mark at the front.
#pragma once
#include <memory>
#include <string>

#include "base/json.h"

namespace molt::text {

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  // `text` is valid UTF-8 before and after.
  virtual void apply(std::string& text) const = 0;
};

// From the `normalizer` of a tokenizer.json: NFC, NFD, NFKC, NFKD, Prepend, Replace, Lowercase, Strip,
// StripAccents, Precompiled, Sequence.
std::unique_ptr<Normalizer> make_normalizer(const Json& json, const std::string& place);

}  // namespace molt::text
