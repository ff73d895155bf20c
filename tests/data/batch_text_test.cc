#include "data/batch_text.h"

#include <gtest/gtest.h>

#include "text/word_tokenizer.h"

namespace molt {
namespace {

TEST(BatchText, ShowsEachTokenWithItsOwnWeight) {
  const auto tokenizer = Tokenizer::parse(make_word_tokenizer({"a", "b"}), "words");
  const std::int32_t a = *tokenizer->id("a"), b = *tokenizer->id("b");
  const PackedBatch batch = PackedBatch::of({{{a, b, a}, {9, 0, 0.5f}}, {{b, a}, {}}});
  const auto line = [](int position, std::int32_t id, const char* weight, const char* token) {
    char text[64];
    std::snprintf(text, sizeof text, "%8d%9d%7s  %s\n", position, id, weight, token);
    return std::string(text);
  };
  EXPECT_EQ(batch_text(batch, tokenizer.get()),
            "sequence 0: 3 tokens, 1 learned\n" + line(0, a, "0", "a") + line(1, b, "0", "b") + line(2, a, "0.5", "a") +
                "sequence 1: 2 tokens, 1 learned\n" + line(0, b, "0", "b") + line(1, a, "1", "a"));
  EXPECT_EQ(batch_text(PackedBatch::of({{{7, 8}, {}}}), nullptr),
            "sequence 0: 2 tokens, 1 learned\n       0        7      0\n       1        8      1\n");
}

}  // namespace
}  // namespace molt
