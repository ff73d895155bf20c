#include "text/model.h"

#include "text/bpe.h"
#include "text/component.h"
#include "text/unigram.h"
#include "text/word_level.h"

namespace molt::text {
namespace models {

using Made = std::unique_ptr<TokenModel>;

template <class Model>
Made make(const Json& json, const std::string& place) {
  return std::make_unique<Model>(json, place);
}

}  // namespace models

WordLevel::WordLevel(const Json& json, const std::string& place)
    : TokenModel(Vocabulary(member(json, "vocab", place), place + ": vocab")),
      unknown_(get<std::string>(json, "unk_token", place)),
      place_(place) {}

void WordLevel::tokenize(const Pieces& pieces, std::vector<std::int32_t>& ids) const {
  for (const Range range : pieces.ranges) {
    auto id = vocabulary().id(pieces.view(range));
    if (!id) id = vocabulary().id(unknown_);
    require(id.has_value(), place_, ": \"", pieces.view(range), "\" is not in the vocabulary, nor is the unk_token \"", unknown_,
            '"');
    ids.push_back(*id);
  }
}

std::unique_ptr<TokenModel> make_model(const Json& json, const std::string& place) {
  // Files of early versions give no type to the only model there was.
  if (json.is_object() && !json.contains("type") && json.contains("merges")) return std::make_unique<Bpe>(json, place);
  return make_component<models::Made>(
      json, place, {{"BPE", models::make<Bpe>}, {"Unigram", models::make<Unigram>}, {"WordLevel", models::make<WordLevel>}});
}

}  // namespace molt::text
