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

}  // namespace added

AddedTokens::Token parse_added_token(const Json& json, const std::string& place) {
  AddedTokens::Token token;
  token.content = get<std::string>(json, "content", place);
  token.single_word = get_or(json, "single_word", false, place);
  token.lstrip = get_or(json, "lstrip", false, place);
  token.rstrip = get_or(json, "rstrip", false, place);
  token.normalized = get_or(json, "normalized", true, place);
  token.special = get_or(json, "special", false, place);
  return token;
}

AddedTokens::AddedTokens(const Json& list, const std::string& place, const TokenModel& model, const Normalizer* normalizer) {
  require(list.is_array(), place, ": found ", list.type_name(), ", expected a list");
  for (std::size_t i = 0; i < list.size(); ++i) {
    const std::string at = concat(place, "[", i, "]");
    Token token = parse_added_token(list[i], at);
    token.id = parse_id(member(list[i], "id", at), at + ": id");
    add(std::move(token), at, model);
  }
  index(normalizer);
}

void AddedTokens::extend(const std::vector<Token>& tokens, const std::string& place, const TokenModel& model,
                         const Normalizer* normalizer) {
  std::unordered_set<std::string> special;
  for (const Token& token : tokens) {
    if (token.id < 0) special.insert(token.content);
  }
  std::vector<Token> missing;
  for (Token token : tokens) {
    const auto known = vocabulary_.id(token.content);
    if (token.id < 0) {
      if (!known) missing.push_back(std::move(token));
    } else if (!known || token != *this->token(*known)) {
      token.special = token.special || special.contains(token.content);
      add(std::move(token), place, model);
    }
  }
  for (Token& token : missing) add(std::move(token), place, model);
  index(normalizer);
}

void AddedTokens::add(Token token, const std::string& place, const TokenModel& model) {
  if (token.content.empty()) return;
  auto id = vocabulary_.id(token.content);
  if (!id) id = model.vocabulary().id(token.content);
  if (!id) id = static_cast<std::int32_t>(std::max(static_cast<std::int64_t>(model.vocabulary().size()), vocabulary_.end()));
  if (token.id >= 0 && *id != token.id)
    log_warning(concat(place, ": the token \"", token.content, "\" has the id ", *id, ", the file says ", token.id));
  token.id = *id;
  vocabulary_.add(token.content, token.id);
  if (token.special) special_.insert(token.content);
  tokens_[token.id] = std::move(token);
}

void AddedTokens::index(const Normalizer* normalizer) {
  in_input_ = in_normalized_ = TokenTree();
  decoded_ = Vocabulary();
  for (const auto& [id, token] : tokens_) {
    std::string text = token.content;
    if (token.normalized && normalizer) normalizer->apply(text);
    if (!text.empty()) (token.normalized ? in_normalized_ : in_input_).add(text, id);
    decoded_.add(text, id);
  }
}

const AddedTokens::Token* AddedTokens::token(std::int32_t id) const {
  const auto found = tokens_.find(id);
  return found == tokens_.end() ? nullptr : &found->second;
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
