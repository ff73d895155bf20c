#include "text/word_tokenizer.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "text/pieces.h"
#include "text/unicode.h"

namespace molt {
namespace word_tokenizer {

constexpr const char* mark = "\u2581";
// What takes a mark with it: letters, one other character, or nothing.
constexpr const char* pattern = "\u2581?[\\p{L}\\p{M}]+|\u2581?[^\u2581]|\u2581";
constexpr const char* specials[] = {"<pad>", "<s>", "</s>", "<unk>"};
constexpr std::string_view always = "0123456789.,?!:;'\"()+-*/=%$";

}  // namespace word_tokenizer

std::string make_word_tokenizer(const std::vector<std::string>& words) {
  namespace self = word_tokenizer;
  OrderedJson vocab = OrderedJson::object(), added = OrderedJson::array();
  const auto add = [&vocab](const std::string& token) { vocab.emplace(token, vocab.size()); };
  for (const char* token : self::specials) {
    added.push_back({{"id", vocab.size()},
                     {"content", token},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
    add(token);
  }
  const auto add_both = [&add](const std::string& part) {
    add(self::mark + part);
    add(part);
  };
  add(self::mark);
  add_both("\n");
  for (const char c : self::always) add_both(std::string(1, c));

  const text::Pattern parts{text::Regex(self::pattern, "word tokenizer")};
  for (const auto& word : words) {
    require(text::is_valid_utf8(word), "word tokenizer: found a word that is no UTF-8");
    std::vector<text::Stretch> stretches;
    parts.cut(word, stretches);
    for (const auto& [range, match] : stretches) {
      const std::string part = word.substr(range.begin, range.end - range.begin);
      if (part != " " && part.find(self::mark) == part.npos) add_both(part);
    }
  }

  const OrderedJson metaspace = {
      {"type", "Metaspace"}, {"replacement", self::mark}, {"prepend_scheme", "always"}, {"split", false}};
  const OrderedJson split = {
      {"type", "Split"}, {"pattern", {{"Regex", self::pattern}}}, {"behavior", "Isolated"}, {"invert", false}};
  const OrderedJson bos = {{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}};
  const auto text_of = [](const char* id) { return OrderedJson{{"Sequence", {{"id", id}, {"type_id", 0}}}}; };
  const OrderedJson tokenizer = {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", added},
      {"normalizer", nullptr},
      {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", OrderedJson::array({metaspace, split})}}},
      {"post_processor",
       {{"type", "TemplateProcessing"},
        {"single", OrderedJson::array({bos, text_of("A")})},
        {"pair", OrderedJson::array({bos, text_of("A"), text_of("B")})},
        {"special_tokens",
         {{"<s>", {{"id", "<s>"}, {"ids", OrderedJson::array({1})}, {"tokens", OrderedJson::array({"<s>"})}}}}}}},
      {"decoder", metaspace},
      {"model", {{"type", "WordLevel"}, {"vocab", vocab}, {"unk_token", "<unk>"}}}};
  return tokenizer.dump(1) + '\n';
}

std::string word_tokenizer_config() {
  const OrderedJson config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                              {"bos_token", "<s>"},
                              {"eos_token", "</s>"},
                              {"pad_token", "<pad>"},
                              {"unk_token", "<unk>"},
                              {"clean_up_tokenization_spaces", false}};
  return config.dump(1) + '\n';
}

}  // namespace molt
