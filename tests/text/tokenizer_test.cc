#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <thread>

#include "base/error.h"
#include "fixtures.h"
#include "support/temporary_folder.h"

namespace molt {
namespace tokenizer_test {

using testing::added_token;
using testing::bpe_model;
using testing::tokenizer_json;
using testing::Tree;
using testing::word_level_model;
using Ids = std::vector<std::int32_t>;

std::shared_ptr<const Tokenizer> parse(const Tree& json) {
  return Tokenizer::parse(json.dump(), "test.json");
}

std::string error_of(const std::string& text) {
  try {
    Tokenizer::parse(text, "test.json");
  } catch (const UserError& error) {
    return error.what();
  }
  return "no error";
}

std::string error_in(const Tree& json) {
  return error_of(json.dump());
}

// Llama-2's shape: the text as one piece, marks for spaces, bytes for what has no token.
Tree llama_shape() {
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>", "▁", "a", "b", "ab", "▁ab", "▁▁"};
  for (const char* byte : {"<0xC3>", "<0xA9>", "<0xE4>", "<0xBD>", "<0xA0>"}) tokens.emplace_back(byte);
  Tree model = bpe_model(tokens, {"a b", "▁ ab", "▁ ▁"});
  model.update({{"byte_fallback", true}, {"fuse_unk", true}, {"unk_token", "<unk>"}});
  Tree json = tokenizer_json(model);
  json["added_tokens"] = {added_token(0, "<unk>"), added_token(1, "<s>"), added_token(2, "</s>")};
  json["normalizer"] = Tree::parse(R"({"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},
      {"type":"Replace","pattern":{"String":" "},"content":"▁"}]})");
  json["decoder"] = Tree::parse(R"({"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},
      {"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]})");
  json["post_processor"] = Tree::parse(R"({"type":"TemplateProcessing","pair":[],
      "single":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],
      "special_tokens":{"<s>":{"id":"<s>","ids":[1],"tokens":["<s>"]}}})");
  return json;
}

TEST(Tokenizer, EncodesInLlamaShape) {
  const auto tokenizer = parse(llama_shape());
  EXPECT_EQ(tokenizer->encode("ab  ab"), (Ids{1, 7, 3, 7}));
  EXPECT_EQ(tokenizer->encode("ab", false), (Ids{7}));
  EXPECT_EQ(tokenizer->encode("é", false), (Ids{3, 9, 10}));
  EXPECT_EQ(tokenizer->encode("xyb", false), (Ids{3, 0, 5}));  // two unknown characters fused
  EXPECT_EQ(tokenizer->encode("ab</s>ab", false), (Ids{7, 2, 7}));
  EXPECT_EQ(tokenizer->encode(""), (Ids{1}));
  EXPECT_EQ(tokenizer->encode("\xC3(", false), tokenizer->encode("\uFFFD(", false));
  EXPECT_EQ(tokenizer->vocabulary(), 14);
  EXPECT_EQ(tokenizer->id("▁ab"), 7);
  EXPECT_EQ(tokenizer->id("nothing"), std::nullopt);
  EXPECT_EQ(tokenizer->token(7), "▁ab");
  EXPECT_EQ(tokenizer->token(99), "");
  EXPECT_TRUE(tokenizer->is_special(2));
  EXPECT_FALSE(tokenizer->is_special(7));
}

// The sum of log-probabilities decides, not the longest token; of two ways with the same sum the one found first stays.
TEST(Tokenizer, UnigramTakesTheMostProbableCut) {
  Tree json = tokenizer_json({{"type", "Unigram"},
                              {"unk_id", 0},
                              {"vocab", Tree::parse(R"([["<unk>", 0], ["a", -1], ["b", -1], ["ab", -3], ["bc", -1], ["c", -2.5],
                                                        ["abc", -2.5]])")}});
  const auto tokenizer = parse(json);
  EXPECT_EQ(tokenizer->encode("ab", false), (Ids{1, 2}));
  EXPECT_EQ(tokenizer->encode("abc", false), (Ids{1, 4}));
  EXPECT_EQ(tokenizer->encode("axyzb", false), (Ids{1, 0, 2}));  // neighbours without a token are one
  json["model"]["byte_fallback"] = true;
  for (const char* byte : {"<0x78>", "<0x79>"}) json["model"]["vocab"].push_back({byte, -5});
  EXPECT_EQ(parse(json)->encode("axyb", false), (Ids{1, 7, 8, 2}));
  EXPECT_EQ(parse(json)->encode("axzb", false), (Ids{1, 0, 2}));  // z has no byte token
}

TEST(Tokenizer, RefusesABrokenUnigram) {
  const auto error = [](const char* model) { return error_in(tokenizer_json(Tree::parse(model))); };
  EXPECT_EQ(error(R"({"type": "Unigram", "vocab": [["a", "b"]]})"),
            "test.json: model: vocab[0]: found [\"a\",\"b\"], expected [token, log-probability]");
  EXPECT_EQ(error(R"({"type": "Unigram", "vocab": {"a": 1}})"), "test.json: model: vocab: found object, expected a list");
  EXPECT_EQ(error(R"({"type": "Unigram", "unk_id": 3, "vocab": [["a", -1]]})"),
            "test.json: model: unk_id: found 3, expected an id below the vocabulary's size 1");
  const auto tokenizer = parse(tokenizer_json(Tree::parse(R"({"type": "Unigram", "vocab": [["a", -1]]})")));
  EXPECT_THROW(tokenizer->encode("b", false), UserError);
}

TEST(Tokenizer, DecodesInLlamaShape) {
  const auto tokenizer = parse(llama_shape());
  EXPECT_EQ(tokenizer->decode(Ids{1, 7, 3, 7}), "ab  ab");
  EXPECT_EQ(tokenizer->decode(Ids{1, 7, 2}, false), "<s> ab</s>");
  EXPECT_EQ(tokenizer->decode(Ids{7, 9, 10, 11, 12, 13}), "abé你");
  EXPECT_EQ(tokenizer->decode(Ids{9, 10, 11}), "\uFFFD\uFFFD\uFFFD");  // the run as a whole is no UTF-8
  EXPECT_EQ(tokenizer->decode(Ids{7, 5000, -1}), "ab");
  EXPECT_EQ(tokenizer->decode(Ids{}), "");
}

TEST(StreamDecoder, HoldsBackWhatCanChange) {
  const auto tokenizer = parse(llama_shape());
  StreamDecoder stream(tokenizer);
  const auto push = [&stream](std::int32_t id) { return stream.push(id); };
  EXPECT_EQ(push(1), "");
  EXPECT_EQ(push(7), "ab");
  EXPECT_EQ(push(7), " ab");
  EXPECT_EQ(push(9), "");
  EXPECT_EQ(push(10), "");
  EXPECT_EQ(push(4), "éa");
  EXPECT_EQ(push(11), "");
  EXPECT_EQ(stream.finish(), "\uFFFD");
  EXPECT_EQ(push(7), "ab") << "as new after finish()";
}

TEST(StreamDecoder, GivesByteLevelTextCharacterByCharacter) {
  Tree json = tokenizer_json(bpe_model({"a", "Ã", "©", "Ġ"}, {}));
  json["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
  json["decoder"] = {{"type", "ByteLevel"}};
  const auto tokenizer = parse(json);
  EXPECT_EQ(tokenizer->encode("é a"), (Ids{1, 2, 3, 0}));
  StreamDecoder stream(tokenizer);
  EXPECT_EQ(stream.push(1), "");
  EXPECT_EQ(stream.push(2), "é");
  EXPECT_EQ(stream.push(1), "");
  EXPECT_EQ(stream.push(0), "\uFFFDa");
  EXPECT_EQ(stream.push(1), "");
  EXPECT_EQ(stream.finish(), "\uFFFD");
}

TEST(StreamDecoder, StripsAtBothEnds) {
  Tree json = tokenizer_json(word_level_model({"-", "a"}, "-"));
  json["decoder"] =
      Tree::parse(R"({"type":"Sequence","decoders":[{"type":"Fuse"},{"type":"Strip","content":"-","start":2,"stop":2}]})");
  const auto tokenizer = parse(json);
  const Ids ids = {0, 0, 0, 1, 0, 1, 0, 0, 0};
  EXPECT_EQ(tokenizer->decode(ids), "-a-a-");
  StreamDecoder stream(tokenizer);
  std::string text;
  for (const auto id : ids) text += stream.push(id);
  EXPECT_EQ(text + stream.finish(), "-a-a-");
}

TEST(Tokenizer, JoinsWithSpacesWithoutADecoder) {
  Tree json = tokenizer_json(word_level_model({"<unk>", "tom", "has"}, "<unk>"));
  json["pre_tokenizer"] = {{"type", "WhitespaceSplit"}};
  const auto tokenizer = parse(json);
  EXPECT_EQ(tokenizer->encode("tom  has cats"), (Ids{1, 2, 0}));
  EXPECT_EQ(tokenizer->decode(Ids{1, 2, 0}), "tom has <unk>");
}

TEST(Bpe, MergesByRankNotByPosition) {
  const auto ids = [](const std::vector<std::string>& merges, const std::string& text) {
    return parse(tokenizer_json(bpe_model({"a", "b", "c", "ab", "bc", "abc"}, merges)))->encode(text);
  };
  EXPECT_EQ(ids({"a b", "b c"}, "abc"), (Ids{3, 2}));
  EXPECT_EQ(ids({"b c", "a b"}, "abc"), (Ids{0, 4}));
  EXPECT_EQ(ids({"b c", "a b", "a bc"}, "abc"), (Ids{5}));
  EXPECT_EQ(ids({}, "abxc"), (Ids{0, 1, 2})) << "what has no token and no unknown token is left out";
}

TEST(Bpe, TakesEqualPairsFromTheLeft) {
  const auto tokenizer = parse(tokenizer_json(bpe_model({"a", "aa", "aaaa"}, {"a a", "aa aa"})));
  EXPECT_EQ(tokenizer->encode("aaaaaaa"), (Ids{2, 1, 0}));
}

TEST(Bpe, IgnoresMergesForWholeWords) {
  Tree model = bpe_model({"a", "b", "ab"}, {});
  EXPECT_EQ(parse(tokenizer_json(model))->encode("ab"), (Ids{0, 1}));
  model["ignore_merges"] = true;
  EXPECT_EQ(parse(tokenizer_json(model))->encode("ab"), (Ids{2}));
}

TEST(Bpe, ReadsMergesAsPairs) {
  Tree model = bpe_model({"a", " ", "a "}, {});
  model["merges"] = Tree::array({Tree::array({"a", " "})});
  EXPECT_EQ(parse(tokenizer_json(model))->encode("a a "), (Ids{2, 2}));
}

// Cutting at marks is for speed: a merge that reaches across one must switch it off.
TEST(Bpe, MergesAcrossMarksWhereItLearnedTo) {
  const auto tokenizer = parse(tokenizer_json(bpe_model({"a", "▁", "a▁", "▁a"}, {"a ▁", "▁ a"})));
  EXPECT_EQ(tokenizer->encode("a▁a"), (Ids{2, 0}));
}

TEST(Bpe, HandlesAMillionCharactersInOneWord) {
  const auto tokenizer = parse(tokenizer_json(bpe_model({"a", "aa", "aaaa"}, {"a a", "aa aa"})));
  EXPECT_EQ(tokenizer->encode(std::string(1'000'000, 'a')), Ids(250'000, 2));
}

TEST(AddedTokens, TakeSpaceAndMindWords) {
  Tree json = tokenizer_json(bpe_model({"a", " ", "<", ">"}, {}));
  json["added_tokens"] = {added_token(4, "<l>", {{"lstrip", true}}), added_token(5, "<r>", {{"rstrip", true}}),
                          added_token(6, "<w>", {{"single_word", true}}), added_token(7, "<l><r>")};
  const auto tokenizer = parse(json);
  EXPECT_EQ(tokenizer->encode("a  <l> a"), (Ids{0, 4, 1, 0}));
  EXPECT_EQ(tokenizer->encode("a <r>  a"), (Ids{0, 1, 5, 0}));
  EXPECT_EQ(tokenizer->encode("a <w> a<w>"), (Ids{0, 1, 6, 1, 0, 2, 3}));
  EXPECT_EQ(tokenizer->encode("<l><r>a"), (Ids{7, 0})) << "the longest wins";
}

TEST(AddedTokens, AreFoundNormalizedIfTheySaySo) {
  Tree json = tokenizer_json(bpe_model({"d", "a", "y"}, {}));
  json["normalizer"] = {{"type", "Lowercase"}};
  json["added_tokens"] = {added_token(3, "Day", {{"normalized", true}, {"special", false}}), added_token(4, "AY")};
  const auto tokenizer = parse(json);
  EXPECT_EQ(tokenizer->encode("DayaDAY"), (Ids{3, 1, 0, 4}));
}

TEST(Tokenizer, EncodesFromManyThreadsAlike) {
  const auto tokenizer = parse(llama_shape());
  std::string text;
  for (int i = 0; i < 2000; ++i) text += i % 3 ? "ab " : "aé b";
  const Ids expected = tokenizer->encode(text);
  std::vector<Ids> results(8);
  std::vector<std::thread> threads;
  for (auto& result : results) threads.emplace_back([&] { result = tokenizer->encode(text); });
  for (auto& thread : threads) thread.join();
  for (const auto& result : results) EXPECT_EQ(result, expected);
}

TEST(Tokenizer, RefusesBrokenFilesInOneLine) {
  EXPECT_NE(error_of("{").find("test.json:1"), std::string::npos);
  EXPECT_EQ(error_of("[]"), "test.json: found array, expected an object");
  EXPECT_EQ(error_of("{}"), "test.json: model: missing");
  Tree json = llama_shape();
  json["model"]["merges"].push_back("a z");
  EXPECT_EQ(error_in(json), "test.json: model: merges[3]: the token \"z\" is not in the vocabulary");
  json["model"]["merges"][3] = "a b c";
  EXPECT_EQ(error_in(json), "test.json: model: merges[3]: found \"a b c\", expected two tokens");
  json["model"]["merges"][3] = {1, 2};
  EXPECT_EQ(error_in(json), "test.json: model: merges[3]: expected two tokens");
  json = llama_shape();
  json["model"]["vocab"]["a"] = 1e30;
  EXPECT_EQ(error_in(json), "test.json: model: vocab: the id of \"a\": found number, expected a whole number");
  json["model"]["vocab"]["a"] = 3'000'000'000u;
  EXPECT_EQ(error_in(json), "test.json: model: vocab: found 3000000000, expected a whole number in [0, 2147483647)");
  json = llama_shape();
  json["model"]["type"] = "WordPiece";
  EXPECT_EQ(error_in(json), "test.json: model: type: found \"WordPiece\", expected one of BPE, Unigram, WordLevel");
  json["model"]["type"] = 3;
  EXPECT_NE(error_in(json).find("test.json: model: type: found 3"), std::string::npos);
  json = llama_shape();
  json["model"]["dropout"] = 0.1;
  EXPECT_NE(error_in(json).find("test.json: model: dropout"), std::string::npos);
  json = llama_shape();
  json["post_processor"]["special_tokens"]["<s>"]["ids"] = {77};
  EXPECT_EQ(error_in(json), "test.json: post_processor: the id 77 has no token");
  json = llama_shape();
  json["added_tokens"] = 5;
  EXPECT_EQ(error_in(json), "test.json: added_tokens: found number, expected a list");
  EXPECT_NE(error_of(R"({"normalizer":)" + std::string(100'000, '[')).find("nested deeper"), std::string::npos);
}

class Folder : public FolderTest {
 protected:
  Folder() { write("tokenizer.json", llama_shape().dump()); }
  void write(const std::string& name, const std::string& text) { std::ofstream(folder / name) << text; }
};

TEST_F(Folder, NamesTheTokensThatBeginAndEnd) {
  EXPECT_EQ(Tokenizer::load(folder)->bos(), std::nullopt);
  EXPECT_TRUE(Tokenizer::load(folder)->stop_tokens().empty());
  write("config.json", R"({"bos_token_id":1,"eos_token_id":2})");
  EXPECT_EQ(Tokenizer::load(folder / "tokenizer.json")->eos(), 2);
  write("generation_config.json", R"({"eos_token_id":[2,7]})");
  write("tokenizer_config.json", R"({"bos_token":"<s>","eos_token":{"content":"▁▁"}})");
  const auto tokenizer = Tokenizer::load(folder);
  EXPECT_EQ(tokenizer->bos(), 1);
  EXPECT_EQ(tokenizer->eos(), 8);
  EXPECT_EQ(tokenizer->stop_tokens(), (Ids{8, 2, 7}));
}

TEST_F(Folder, AddsTheTokensThatOtherFilesDescribe) {
  write("tokenizer_config.json", R"({"eos_token":"<end>","pad_token":"</s>","added_tokens_decoder":
      {"2":{"content":"</s>","rstrip":true,"normalized":false,"special":true}}})");
  const auto tokenizer = Tokenizer::load(folder);
  EXPECT_EQ(tokenizer->encode("ab</s>  <end>ab", false), (Ids{7, 2, 14, 7}));
  EXPECT_EQ(tokenizer->eos(), 14);
  EXPECT_EQ(tokenizer->vocabulary(), 15);
  EXPECT_EQ(tokenizer->decode(Ids{7, 2, 14, 7}), "ab ab");
}

TEST_F(Folder, SaysWhichFileIsBroken) {
  const auto error = [this](const fs::path& path) -> std::string {
    try {
      Tokenizer::load(path);
    } catch (const UserError& problem) {
      return problem.what();
    }
    return "no error";
  };
  write("generation_config.json", R"({"eos_token_id":"</s>"})");
  EXPECT_NE(error(folder).find("generation_config.json: eos_token_id: found string, expected a whole number"), std::string::npos);
  fs::remove(folder / "generation_config.json");
  for (const auto& [config, problem] : {
           std::pair(R"({"pad_token":5})", "pad_token: found 5, expected a token"),
           std::pair(R"({"pad_token":{"text":"a"}})", "pad_token: content: missing"),
           std::pair(R"({"extra_special_tokens":"a"})", "extra_special_tokens: found \"a\", expected a list or an object"),
           std::pair(R"({"added_tokens_decoder":[]})", "added_tokens_decoder: found array, expected an object"),
           std::pair(R"({"added_tokens_decoder":{"a":{"content":"b"}}})", "added_tokens_decoder: a"),
           std::pair(R"({"added_tokens_decoder":{"-1":{"content":"b"}}})",
                     "added_tokens_decoder: -1: found -1, expected a whole"),
       }) {
    write("tokenizer_config.json", config);
    EXPECT_NE(error(folder).find(concat("tokenizer_config.json: ", problem)), std::string::npos) << error(folder);
  }
  fs::remove(folder / "tokenizer_config.json");
  write("special_tokens_map.json", R"({"eos_token":[]})");
  EXPECT_NE(error(folder).find("special_tokens_map.json: eos_token: found [], expected a token"), std::string::npos);
  fs::remove(folder / "special_tokens_map.json");
  write("added_tokens.json", "[]");
  EXPECT_NE(error(folder).find("added_tokens.json: found array, expected an object"), std::string::npos);
  fs::remove(folder / "tokenizer.json");
  EXPECT_NE(error(folder).find("tokenizer.json"), std::string::npos);
  for (const char* name : {"vocab.json", "tekken.json", "tokenizer.model"}) {
    write(name, "");
    EXPECT_NE(error(folder).find(concat("found ", name, ", expected tokenizer.json")), std::string::npos);
  }
}

}  // namespace tokenizer_test
}  // namespace molt
