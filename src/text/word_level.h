// A piece is a token, or it is unknown.
#pragma once
#include "text/model.h"

namespace molt::text {

class WordLevel : public TokenModel {
 public:
  WordLevel(const Json& json, const std::string& place);
  // A piece without a token where the vocabulary has no unk_token either is a UserError.
  void tokenize(const Pieces& pieces, std::vector<std::int32_t>& ids) const override;

 private:
  std::string unknown_, place_;
};

}  // namespace molt::text
