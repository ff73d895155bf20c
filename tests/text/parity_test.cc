// Compares with what Hugging Face `tokenizers` gave: test_tokenizer_parity.py writes the cases and runs these tests on them. A
// folder of cases holds a tokenizer.json and, line by line, texts.jsonl (JSON strings), ids.txt (with special tokens),
// decoded.jsonl; random_ids.txt with random_decoded.jsonl (special tokens kept).
#include <gtest/gtest.h>

#include <charconv>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "text/tokenizer.h"
#include "text/unicode.h"
#include "text/word_tokenizer.h"

namespace molt {
namespace parity_test {

using Ids = std::vector<std::int32_t>;

Ids parse_ids(std::string_view line) {
  Ids ids;
  for (const char *at = line.data(), *end = at + line.size(); at < end; ++at) {
    std::int32_t id = 0;
    at = std::from_chars(at, end, id).ptr;
    ids.push_back(id);
  }
  return ids;
}

std::string stream(const std::shared_ptr<const Tokenizer>& tokenizer, const Ids& ids, bool skip_special_tokens) {
  StreamDecoder decoder(tokenizer, skip_special_tokens);
  std::string text;
  for (const auto id : ids) {
    const std::string piece = decoder.push(id);
    EXPECT_TRUE(text::is_valid_utf8(piece));
    text += piece;
  }
  return text + decoder.finish();
}

std::string next_string(LineReader& reader) {
  std::string_view line;
  EXPECT_TRUE(reader.next(line)) << reader.place();
  return parse_json(line, reader.place()).get<std::string>();
}

Ids next_ids(LineReader& reader) {
  std::string_view line;
  EXPECT_TRUE(reader.next(line)) << reader.place();
  return parse_ids(line);
}

void check_texts(const fs::path& folder, const std::shared_ptr<const Tokenizer>& tokenizer) {
  LineReader texts(folder / "texts.jsonl"), ids(folder / "ids.txt"), decoded(folder / "decoded.jsonl");
  std::string_view line;
  while (texts.next(line) && !::testing::Test::HasFailure()) {
    const auto text = parse_json(line, texts.place()).get<std::string>();
    const Ids expected = next_ids(ids);
    ASSERT_EQ(tokenizer->encode(text), expected) << texts.place() << ": " << line;
    const std::string expected_text = next_string(decoded);
    ASSERT_EQ(tokenizer->decode(expected), expected_text) << decoded.place();
    ASSERT_EQ(stream(tokenizer, expected, true), expected_text) << decoded.place();
  }
}

void check_random_ids(const fs::path& folder, const std::shared_ptr<const Tokenizer>& tokenizer) {
  LineReader ids(folder / "random_ids.txt"), decoded(folder / "random_decoded.jsonl");
  std::string_view line;
  while (ids.next(line) && !::testing::Test::HasFailure()) {
    const Ids random = parse_ids(line);
    const std::string expected = next_string(decoded);
    ASSERT_EQ(tokenizer->decode(random, false), expected) << ids.place();
    ASSERT_EQ(stream(tokenizer, random, false), expected) << ids.place();
  }
}

TEST(Parity, AgreesWithTokenizers) {
  const char* cases = std::getenv("MOLT_TEXT_CASES");
  if (!cases) GTEST_SKIP() << "test_tokenizer_parity.py sets MOLT_TEXT_CASES";
  for (const auto& entry : fs::directory_iterator(cases)) {
    SCOPED_TRACE(entry.path().string());
    const auto tokenizer = Tokenizer::load(entry.path());
    check_texts(entry.path(), tokenizer);
    check_random_ids(entry.path(), tokenizer);
  }
}

// Writes a word tokenizer for the Python side to load.
TEST(Parity, WritesAWordTokenizer) {
  const char* folder = std::getenv("MOLT_TEXT_WORDS");
  if (!folder) GTEST_SKIP() << "test_tokenizer_parity.py sets MOLT_TEXT_WORDS";
  write_file(fs::path(folder) / "tokenizer.json", make_word_tokenizer({"tom", "has", "apples", "don't", "été"}));
  write_file(fs::path(folder) / "tokenizer_config.json", word_tokenizer_config());
}

}  // namespace parity_test
}  // namespace molt
