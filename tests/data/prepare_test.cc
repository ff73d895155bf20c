#include "data/prepare.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"
#include "data/sample_stream.h"
#include "formats/safetensors.h"
#include "support/error_of.h"
#include "support/temporary_folder.h"
#include "text/word_tokenizer.h"

namespace molt {
namespace {

class PrepareTest : public testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(folder_ / "words");
    write_file(folder_ / "words" / "tokenizer.json", make_word_tokenizer({"a", "b", "c", "d", "e"}));
    write_file(folder_ / "words" / "tokenizer_config.json", word_tokenizer_config());
    tokenizer_ = Tokenizer::load(folder_ / "words");
    config_.tokenizer = folder_ / "words";
    config_.output = folder_ / "out";
  }

  void input(const std::string& text) {
    write_file(folder_ / "in.jsonl", text);
    config_.input = {folder_ / "in.jsonl"};
  }
  std::string error() {
    return error_of([&] { prepare(config_); });
  }

  TemporaryFolder temporary_;
  const fs::path folder_ = temporary_.path();
  PrepareConfig config_;
  std::shared_ptr<const Tokenizer> tokenizer_;
};

TEST_F(PrepareTest, LearnsFromTheCompletionAndTheEnd) {
  input("{\"prompt\": \"a b\", \"completion\": \" c d\"}\n\n{\"text\": \"e e e\"}\n");
  const PrepareResult result = prepare(config_);
  EXPECT_EQ(result.samples, 2);
  const auto stream = open_shards(folder_ / "out");
  ASSERT_EQ(stream->size(), 2);
  EXPECT_EQ(stream->tokens(), result.tokens);

  const auto asked = stream->at(0);
  EXPECT_EQ(asked.tokens.back(), *tokenizer_->eos());
  EXPECT_EQ(tokenizer_->decode(asked.tokens), "a b c d");
  const auto prompt = tokenizer_->encode("a b").size();
  for (std::size_t i = 0; i < asked.tokens.size(); ++i) EXPECT_EQ(asked.weights[i], i < prompt ? 0.0f : 1.0f) << i;
  EXPECT_EQ(result.loss_tokens, 3 + static_cast<std::int64_t>(stream->at(1).tokens.size()) - 1);
}

TEST_F(PrepareTest, ShardsHoldWhatOneShardHolds) {
  std::string text;
  for (int i = 0; i < 5000; ++i) text += "{\"text\": \"a b c d e a b\"}\n";
  input(text);
  prepare(config_);
  const auto whole = open_shards(folder_ / "out");
  config_.output = folder_ / "split";
  config_.shard_tokens = 10000;
  prepare(config_);
  EXPECT_TRUE(fs::exists(folder_ / "split" / "shard-00001.safetensors"));
  const auto split = open_shards(folder_ / "split");
  ASSERT_EQ(split->size(), whole->size());
  for (std::int64_t i = 0; i < whole->size(); i += 37) EXPECT_EQ(split->at(i).tokens, whole->at(i).tokens);
}

TEST_F(PrepareTest, ContinuesAfterTheLastWholeShard) {
  std::string text;
  for (int i = 0; i < 6000; ++i) text += i == 5000 ? "broken\n" : concat("{\"text\": \"a b ", i % 2 ? "c" : "d", "\"}\n");
  input(text);
  config_.shard_tokens = 8000;
  EXPECT_NE(error().find("in.jsonl:5001"), std::string::npos);
  EXPECT_TRUE(fs::exists(folder_ / "out" / "shard-00000.safetensors"));
  EXPECT_THROW(open_shards(folder_ / "out"), UserError);  // incomplete
  text.replace(text.find("broken"), 6, "{\"text\": \"e\"}");
  input(text);
  EXPECT_EQ(prepare(config_).samples, 6000);
  const auto resumed = open_shards(folder_ / "out");
  config_.output = folder_ / "once";
  prepare(config_);
  const auto once = open_shards(folder_ / "once");
  ASSERT_EQ(resumed->size(), once->size());
  for (std::int64_t i = 0; i < once->size(); i += 97) EXPECT_EQ(resumed->at(i).tokens, once->at(i).tokens);
}

TEST_F(PrepareTest, CountsMalformedLinesUpToALimit) {
  input("{\"text\": \"a b\"}\n{\"txt\": 1}\n[1]\n{\"prompt\": \"a\"}\n");
  EXPECT_NE(error().find("in.jsonl:2"), std::string::npos);
  config_.max_malformed = 3;
  const PrepareResult result = prepare(config_);
  EXPECT_EQ(result.malformed, 3);
  EXPECT_EQ(result.samples, 1);
}

TEST_F(PrepareTest, DropsWhatIsTooLong) {
  input("{\"text\": \"a b c d e a b c d e\"}\n{\"text\": \"a b\"}\n");
  config_.max_length = 6;
  const PrepareResult result = prepare(config_);
  EXPECT_EQ(result.dropped, 1);
  EXPECT_EQ(result.samples, 1);
}

TEST_F(PrepareTest, NamesAMissingFileAndEmptyInput) {
  config_.input = {folder_ / "absent.jsonl"};
  EXPECT_NE(error().find("absent.jsonl"), std::string::npos);
  input("\n\n");
  EXPECT_NE(error().find("no sample"), std::string::npos);
}

TEST_F(PrepareTest, RefusesBrokenShards) {
  input("{\"text\": \"a b c\"}\n");
  prepare(config_);
  const fs::path shard = shard_path(folder_ / "out", 0);
  write_safetensors(
      shard,
      {{"tokens", at::zeros({4}, at::kInt)}, {"learn", at::zeros({4}, at::kByte)}, {"offsets", at::tensor({0, 9}, at::kLong)}});
  EXPECT_THROW(open_shards(folder_ / "out"), UserError);
  fs::remove(shard);
  EXPECT_THROW(open_shards(folder_ / "out"), UserError);
}

}  // namespace
}  // namespace molt
