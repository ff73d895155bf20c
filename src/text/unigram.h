// A unigram language model of subwords (Kudo 2018): each token has a log-probability, and a piece is cut where the sum is
// highest.
#pragma once
#include "text/model.h"
#include "text/token_tree.h"

namespace molt::text {

class Unigram : public TokenModel {
 public:
  // `vocab` as a list of [token, log-probability], `unk_id`, `byte_fallback`.
  Unigram(const Json& json, const std::string& place);
  // By Viterbi's algorithm, linear in the length of a piece. A character that no token begins costs 10 more than the least
  // probable token, as in SentencePiece; neighbours of that kind are one unknown token, or their bytes' tokens with
  // byte_fallback. Where one is needed and there is no unk_id: a UserError.
  void tokenize(const Pieces& pieces, std::vector<std::int32_t>& ids) const override;

 private:
  // The best way to cut the text up to a place: the token that ends there and where it begins.
  struct Best {
    double score = 0;
    std::int32_t id = -1;  // -1: nothing ends here
    std::size_t begin = 0;
  };
  std::vector<Best> best_paths(std::string_view piece) const;
  void append(std::string_view token, std::vector<std::int32_t>& ids) const;
  std::int32_t unknown_id(std::string_view text) const;

  std::vector<double> scores_;  // by id
  TokenTree tree_;
  std::int32_t unknown_ = -1;  // -1: none
  double unknown_score_ = 0;
  std::vector<std::int32_t> byte_tokens_;  // "<0x00>" …; -1 where there is none; empty without byte_fallback
  std::string place_;
};

}  // namespace molt::text
