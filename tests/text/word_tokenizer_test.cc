#include "text/word_tokenizer.h"

#include <gtest/gtest.h>

#include "text/tokenizer.h"

namespace molt {
namespace word_tokenizer_test {

using Ids = std::vector<std::int32_t>;

std::shared_ptr<const Tokenizer> make(const std::vector<std::string>& words) {
  return Tokenizer::parse(make_word_tokenizer(words), "word tokenizer");
}

TEST(WordTokenizer, GivesTextsBackExactly) {
  const auto tokenizer = make({"tom", "has", "apples", "Jan", "don't", "été"});
  for (const std::string text :
       {"tom = 3 + 1 4 .", "tom has 14 apples.", "Jan: \"don't\"\ntom has  3\n\n(été)", "", "tom ", "= 2"}) {
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
    const auto ids = tokenizer->encode(text);
    EXPECT_EQ(std::count(ids.begin(), ids.end(), 3), 0) << text;
  }
  // A continuation keeps the space that it begins with when it is decoded behind its prompt.
  Ids ids = tokenizer->encode("tom has");
  const Ids more = tokenizer->encode(" 14 apples.", false);
  ids.insert(ids.end(), more.begin(), more.end());
  EXPECT_EQ(tokenizer->decode(ids), "tom has 14 apples.");
}

TEST(WordTokenizer, SplitsNumbersAndMarksUnknownWords) {
  const auto tokenizer = make({"tom", "has"});
  const auto tokens = [&tokenizer](const std::string& text) {
    std::vector<std::string> out;
    for (const auto id : tokenizer->encode(text)) out.push_back(tokenizer->token(id));
    return out;
  };
  EXPECT_EQ(tokens("tom has 140 cats."), (std::vector<std::string>{"<s>", "▁tom", "▁has", "▁1", "4", "0", "<unk>", "."}));
  EXPECT_EQ(tokenizer->id("<pad>"), 0);
  EXPECT_EQ(tokenizer->id("</s>"), 2);
  EXPECT_EQ(make({"tom", "tom"})->vocabulary(), make({"tom"})->vocabulary());
  EXPECT_EQ(tokenizer->vocabulary(), make({"tom"})->vocabulary() + 2);
}

}  // namespace word_tokenizer_test
}  // namespace molt
