// Small tokenizers written by hand, for tests.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace molt::testing {

using Tree = nlohmann::json;

// A tokenizer.json with this model and nothing else.
inline Tree tokenizer_json(Tree model) {
  return {{"version", "1.0"},         {"added_tokens", Tree::array()}, {"normalizer", nullptr},
          {"pre_tokenizer", nullptr}, {"post_processor", nullptr},     {"decoder", nullptr},
          {"model", std::move(model)}};
}

// A BPE over the tokens in order, with merges as "left right".
inline Tree bpe_model(const std::vector<std::string>& tokens, const std::vector<std::string>& merges) {
  Tree vocab = Tree::object();
  for (std::size_t i = 0; i < tokens.size(); ++i) vocab[tokens[i]] = i;
  return {{"type", "BPE"}, {"vocab", vocab}, {"merges", merges}};
}

inline Tree word_level_model(const std::vector<std::string>& tokens, const std::string& unknown) {
  Tree vocab = Tree::object();
  for (std::size_t i = 0; i < tokens.size(); ++i) vocab[tokens[i]] = i;
  return {{"type", "WordLevel"}, {"vocab", vocab}, {"unk_token", unknown}};
}

inline Tree added_token(int id, const std::string& content, Tree flags = Tree::object()) {
  Tree token = {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
                {"rstrip", false}, {"normalized", false}, {"special", true}};
  token.update(flags);
  return token;
}

}  // namespace molt::testing
