#include "text/added_tokens.h"

#include <algorithm>

#include "base/log.h"
#include "text/component.h"
#include "text/unicode.h"

namespace molt::text {
namespace added {

bool ends_with_word(std::string_view text) {
  if (text.empty()) return false;
  std::size_t position = last_character(text);
  return is_word(next_code_point(text, position));
}

bool starts_with_word(std::string_view text) {
  std::size_t position = 0;
  return !text.empty() && is_word(next_code_point(text, position));
}

// Where the white space at the end of the text begins.
std::size_t trailing_space(std::string_view text) {
  while (!text.empty()) {
    std::size_t position = last_character(text);
    const std::size_t begin = position;
    if (!is_whitespace(next_code_point(text, position))) break;
    text = text.substr(0, begin);
  }
  return text.size();
}

std::size_t leading_space(std::string_view text) {
  std::size_t end = 0, position = 0;
  while (position < text.size() && is_whitespace(next_code_point(text, position))) end = position;
  return end;
}

AddedTokens::Token parse(const Json& json, const std::string& place) {
  AddedTokens::Token token;
  token.content = get<std::string>(json, "content", place);
  token.id = parse_id(member(json, "id", place), place + ": id");
  token.single_word = get_or(json, "single_word", false, place);
  token.lstrip = get_or(json, "lstrip", false, place);
  token.rstrip = get_or(json, "rstrip", false, place);
  token.normalized = get_or(json, "normalized", true, place);
  token.special = get_or(json, "special", false, place);
  return token;
}

}  // namespace added

AddedTokens::AddedTokens(const Json& list, const std::string& place, const TokenModel& model, const Normalizer* normalizer) {
  require(list.is_array(), place, ": found ", list.type_name(), ", expected a list");
  const auto model_size = static_cast<std::int64_t>(model.vocabulary().size());
  std::int64_t next = model_size;
  for (std::size_t i = 0; i < list.size(); ++i) {
    const std::string at = concat(place, "[", i, "]");
    Token token = added::parse(list[i], at);
    if (token.content.empty()) continue;
    auto id = vocabulary_.id(token.content);
    if (!id) id = model.vocabulary().id(token.content);
    if (!id) id = static_cast<std::int32_t>(next++);
    if (*id != token.id) {
      log_warning(concat(at, ": the token \"", token.content, "\" has the id ", *id, ", the file says ", token.id));
      token.id = *id;
    }
    std::string normalized = token.content;
    if (token.normalized && normalizer) normalizer->apply(normalized);
    if (!normalized.empty()) (token.normalized ? in_normalized_ : in_input_).add(normalized, token.id);
    vocabulary_.add(token.content, token.id);
    decoded_.add(normalized, token.id);
    by_id_[token.id] = tokens_.size();
    tokens_.push_back(std::move(token));
  }
}

const AddedTokens::Token* AddedTokens::token(std::int32_t id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : &tokens_[found->second];
}

std::vector<AddedTokens::Section> AddedTokens::find(std::string_view text, const TokenTree& tree) const {
  std::vector<Section> sections;
  std::size_t between = 0;  // where the stretch since the last token begins
  for (std::size_t position = 0; !tree.empty() && position < text.size();) {
    std::size_t length = 0;
    const std::int32_t id = tree.longest(text.substr(position), length);
    if (id < 0) {
      ++position;
      continue;
    }
    std::size_t begin = position, end = position + length;
    position = end;
    const Token& found = *token(id);
    if (found.single_word && (added::ends_with_word(text.substr(0, begin)) || added::starts_with_word(text.substr(end))))
      continue;
    if (found.lstrip) begin = std::max(added::trailing_space(text.substr(0, begin)), between);
    if (found.rstrip) end += added::leading_space(text.substr(end));
    if (between < begin) sections.push_back({{between, begin}, -1});
    sections.push_back({{begin, end}, id});
    between = end;
  }
  if (between < text.size()) sections.push_back({{between, text.size()}, -1});
  return sections;
}

}  // namespace molt::text
