#include "text/unigram.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include "text/component.h"
#include "text/unicode.h"

namespace molt::text {
namespace unigram {

constexpr double unknown_penalty = 10;  // SentencePiece's kUnkPenalty

// The tokens of a list of [token, log-probability], numbered in order; of equal ones the last counts.
Vocabulary read_tokens(const Json& json, const std::string& place) {
  Vocabulary vocabulary;
  const Json& list = list_member(json, "vocab", place);
  for (std::size_t i = 0; i < list.size(); ++i) {
    require(list[i].is_array() && list[i].size() == 2 && list[i][0].is_string() && list[i][1].is_number(),
            item_place(place, "vocab", i), ": found ", to_line(list[i]), ", expected [token, log-probability]");
    vocabulary.add(list[i][0].get<std::string>(), static_cast<std::int32_t>(i));
  }
  return vocabulary;
}

}  // namespace unigram

Unigram::Unigram(const Json& json, const std::string& place) : TokenModel(unigram::read_tokens(json, place)), place_(place) {
  double lowest = std::numeric_limits<double>::infinity();
  for (const Json& entry : json["vocab"]) {
    scores_.push_back(entry[1].get<double>());
    lowest = std::min(lowest, scores_.back());
    const auto token = entry[0].get<std::string>();
    if (!token.empty()) tree_.add(token, *vocabulary().id(token));
  }
  unknown_score_ = lowest - unigram::unknown_penalty;
  if (json.contains("unk_id") && !json["unk_id"].is_null()) {
    unknown_ = parse_id(json["unk_id"], place + ": unk_id");
    require(static_cast<std::size_t>(unknown_) < scores_.size(), place, ": unk_id: found ", unknown_,
            ", expected an id below the vocabulary's size ", scores_.size());
  }
  if (!get_or(json, "byte_fallback", false, place)) return;
  for (unsigned byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", byte);
    byte_tokens_.push_back(vocabulary().id(name).value_or(-1));
  }
}

std::int32_t Unigram::unknown_id(std::string_view text) const {
  require(unknown_ >= 0, place_, ": no token for \"", text, "\", and no unk_id");
  return unknown_;
}

std::vector<Unigram::Best> Unigram::best_paths(std::string_view piece) const {
  std::vector<Best> best(piece.size() + 1);
  const auto offer = [&](std::size_t begin, std::size_t end, std::int32_t id, double score) {
    const double path = best[begin].score + score;
    if (best[end].id < 0 || path > best[end].score) best[end] = {path, id, begin};
  };
  for (std::size_t begin = 0; begin < piece.size();) {
    const std::size_t character = character_length(piece[begin]);
    bool has_character = false;
    tree_.each_prefix(piece.substr(begin), [&](std::int32_t id, std::size_t length) {
      offer(begin, begin + length, id, scores_[static_cast<std::size_t>(id)]);
      has_character |= length == character;
    });
    if (!has_character) offer(begin, begin + character, unknown_id(piece.substr(begin, character)), unknown_score_);
    begin += character;
  }
  return best;
}

// A token of the vocabulary, or a stretch without one.
void Unigram::append(std::string_view token, std::vector<std::int32_t>& ids) const {
  if (const auto id = vocabulary().id(token)) {
    ids.push_back(*id);
    return;
  }
  const auto byte_token = [&](char byte) { return byte_tokens_[static_cast<unsigned char>(byte)]; };
  const bool as_bytes =
      !byte_tokens_.empty() && std::all_of(token.begin(), token.end(), [&](char byte) { return byte_token(byte) >= 0; });
  if (!as_bytes) {
    ids.push_back(unknown_id(token));
    return;
  }
  for (const char byte : token) ids.push_back(byte_token(byte));
}

void Unigram::tokenize(const Pieces& pieces, std::vector<std::int32_t>& ids) const {
  std::vector<Range> cuts;
  for (const Range range : pieces.ranges) {
    const std::string_view piece = pieces.view(range);
    const std::vector<Best> best = best_paths(piece);
    cuts.clear();
    bool joins = false;  // the token behind is unknown: one more before it is part of it
    for (std::size_t end = piece.size(); end > 0; end = best[end].begin) {
      const bool unknown = best[end].id == unknown_;
      if (unknown && joins) {
        cuts.back().begin = best[end].begin;
      } else {
        cuts.push_back({best[end].begin, end});
      }
      joins = unknown;
    }
    for (auto cut = cuts.rbegin(); cut != cuts.rend(); ++cut) append(piece.substr(cut->begin, cut->end - cut->begin), ids);
  }
}

}  // namespace molt::text
