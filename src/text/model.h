// What turns pieces of text into ids.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "text/pieces.h"
#include "text/vocabulary.h"

namespace molt::text {

class TokenModel {
 public:
  explicit TokenModel(Vocabulary vocabulary) : vocabulary_(std::move(vocabulary)) {}
  virtual ~TokenModel() = default;
  // Appends the ids of every piece. May be called from several threads at once.
  virtual void tokenize(const Pieces& pieces, std::vector<std::int32_t>& ids) const = 0;
  const Vocabulary& vocabulary() const { return vocabulary_; }

 private:
  Vocabulary vocabulary_;
};

// From the `model` of a tokenizer.json: BPE, Unigram, WordLevel.
std::unique_ptr<TokenModel> make_model(const Json& json, const std::string& place);

}  // namespace molt::text
