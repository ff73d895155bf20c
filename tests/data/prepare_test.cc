#include "data/prepare.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/folder_lock.h"
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
  // Leaves a folder that is not complete, with one shard of the lines that are returned: the one behind them is broken.
  std::string stop_behind_the_first_shard() {
    std::string text;
    for (int i = 0; i < 3000; ++i) text += "{\"text\": \"a b c\"}\n";
    config_.shard_tokens = 8000;
    input(text + "broken\n");
    EXPECT_NE(error().find("in.jsonl:3001"), std::string::npos);
    return text;
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
  EXPECT_DOUBLE_EQ(learned_share(config_.output), static_cast<double>(result.loss_tokens) / static_cast<double>(result.tokens));
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

TEST_F(PrepareTest, StartsAnewWhenWhatIsDoneWasOfOtherLines) {
  const std::string text = stop_behind_the_first_shard();
  std::string changed = text;
  changed.replace(changed.find("a b c"), 5, "d d d");
  for (const std::string& now : {changed, text.substr(0, text.size() / 2), std::string("{\"text\": \"e\"}\n")}) {
    input(now);
    const PrepareResult result = prepare(config_);
    EXPECT_EQ(result.samples, std::count(now.begin(), now.end(), '\n'));
    EXPECT_EQ(open_shards(folder_ / "out")->at(0).tokens,
              text_sample(*tokenizer_, now.substr(10, now.find('"', 10) - 10)).tokens);
    input(text + "broken\n");
    EXPECT_NE(error().find("in.jsonl:3001"), std::string::npos);
  }
}

TEST_F(PrepareTest, StartsAnewWithAnotherTokenizer) {
  const std::string text = stop_behind_the_first_shard();
  write_file(folder_ / "words" / "tokenizer.json", make_word_tokenizer({"c", "b", "a"}));
  input(text);
  prepare(config_);
  EXPECT_EQ(Tokenizer::load(folder_ / "words")->decode(open_shards(folder_ / "out")->at(0).tokens), "a b c");
}

TEST_F(PrepareTest, LeavesNoShardOfAnEarlierCall) {
  std::string text;
  for (int i = 0; i < 5000; ++i) text += "{\"text\": \"a b c d e a b\"}\n";
  input(text);
  config_.shard_tokens = 10000;
  prepare(config_);
  EXPECT_TRUE(fs::exists(shard_path(folder_ / "out", 1)));
  input("{\"text\": \"a\"}\n");
  prepare(config_);
  EXPECT_EQ(open_shards(folder_ / "out")->size(), 1);
  EXPECT_FALSE(fs::exists(shard_path(folder_ / "out", 1)));
}

TEST_F(PrepareTest, WorksAloneInItsFolder) {
  input("{\"text\": \"a\"}\n");
  const FolderLock lock(config_.output);
  EXPECT_EQ(error(), config_.output + ": another process is at work in this folder");
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

TEST_F(PrepareTest, CutsOrSplitsWhatIsTooLongByChoice) {
  input("{\"text\": \"a b c d e a b c d e\"}\n{\"text\": \"a b\"}\n");
  const auto whole = tokenizer_->encode("a b c d e a b c d e");
  config_.max_length = 6;
  config_.long_samples = "cut";
  EXPECT_EQ(prepare(config_).shortened, 1);
  auto stream = open_shards(folder_ / "out");
  ASSERT_EQ(stream->size(), 2);
  EXPECT_EQ(stream->at(0).tokens, std::vector<std::int32_t>(whole.begin(), whole.begin() + 6));

  config_.long_samples = "split";
  const PrepareResult result = prepare(config_);
  EXPECT_EQ(result.samples, 3);
  EXPECT_EQ(result.dropped, 0);
  stream = open_shards(folder_ / "out");
  std::vector<std::int32_t> joined = stream->at(0).tokens;
  const auto second = stream->at(1);
  EXPECT_EQ(second.weights[0], 0.0f);
  EXPECT_EQ(second.weights[1], 1.0f);
  joined.insert(joined.end(), second.tokens.begin(), second.tokens.end());
  EXPECT_TRUE(std::equal(whole.begin(), whole.end(), joined.begin()));
}

TEST_F(PrepareTest, TakesTokensAsTheyAre) {
  input("{\"tokens\": [3, 4, 5], \"learn\": [0, 0, 1]}\n{\"tokens\": [4, 3]}\n");
  EXPECT_EQ(prepare(config_).loss_tokens, 2);
  const auto stream = open_shards(folder_ / "out");
  EXPECT_EQ(stream->at(0).tokens, (std::vector<std::int32_t>{3, 4, 5}));
  EXPECT_EQ(stream->at(0).weights, (std::vector<float>{0, 0, 1}));
  EXPECT_EQ(stream->at(1).weights, (std::vector<float>{0, 1}));
  input("{\"tokens\": [3, 400]}\n");
  EXPECT_NE(error().find("in.jsonl:1: tokens: found 400, expected ids from 0 to"), std::string::npos) << error();
  input("{\"tokens\": [3, 4], \"learn\": [1]}\n");
  EXPECT_NE(error().find("learn: found 1 value, expected 2, one a token"), std::string::npos) << error();
}

TEST_F(PrepareTest, ReadsConversationsByTheChatTemplate) {
  input(R"({"messages": [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "c"}]})"
        "\n");
  EXPECT_NE(error().find("no chat template"), std::string::npos) << error();
  write_file(folder_ / "words" / "chat_template.jinja",
             "{% for m in messages %}{{ ' d ' if m.role == 'user' else ' e ' }}{{ m.content }}{% endfor %}"
             "{% if add_generation_prompt %} e{% endif %}");
  EXPECT_EQ(prepare(config_).samples, 1);
  const auto sample = open_shards(folder_ / "out")->at(0);
  EXPECT_EQ(tokenizer_->decode(sample.tokens), "d a b e c");
  EXPECT_EQ(sample.weights, (std::vector<float>{0, 0, 0, 0, 1}));
}

TEST_F(PrepareTest, ReadsCompressedFiles) {
  std::string text;
  for (int i = 0; i < 30000; ++i) text += concat("{\"text\": \"a ", i % 2 ? "b" : "c d", "\"}\n");
  input(text);
  const PrepareResult plain = prepare(config_);
  const auto expected = open_shards(folder_ / "out");
  // Two members and two frames, as parallel compressors write them.
  const std::string half = (folder_ / "half").string(), in = (folder_ / "in.jsonl").string();
  for (const char* tool : {"gzip", "zstd -q"}) {
    const std::string command =
        concat("(head -n 9999 ", in, " | ", tool, " -c; tail -n +10000 ", in, " | ", tool, " -c) > ", half);
    ASSERT_EQ(std::system(command.c_str()), 0);
    config_.input = {half};
    EXPECT_EQ(prepare(config_).samples, plain.samples);
    const auto got = open_shards(folder_ / "out");
    for (std::int64_t i = 0; i < got->size(); i += 61) EXPECT_EQ(got->at(i).tokens, expected->at(i).tokens);
    fs::resize_file(half, fs::file_size(half) - 20);
    EXPECT_NE(error().find("half: "), std::string::npos) << error();
  }
}

TEST_F(PrepareTest, NamesAMissingFileAndEmptyInput) {
  config_.input = {folder_ / "absent.jsonl"};
  EXPECT_NE(error().find("absent.jsonl"), std::string::npos);
  EXPECT_FALSE(fs::exists(folder_ / "out"));
  input("\n\n");
  EXPECT_NE(error().find("no sample"), std::string::npos);
  EXPECT_FALSE(fs::exists(folder_ / "out"));
  fs::create_directories(folder_ / "out");
  EXPECT_NE(error().find("no sample"), std::string::npos);
  EXPECT_TRUE(fs::exists(folder_ / "out")) << "it was there before";
}

TEST_F(PrepareTest, RefusesBrokenShards) {
  input("{\"text\": \"a b c\"}\n");
  prepare(config_);
  const fs::path shard = shard_path(folder_ / "out", 0);
  write_safetensors(
      shard,
      {{"tokens", at::zeros({4}, at::kInt)}, {"learn", at::zeros({4}, at::kByte)}, {"offsets", at::tensor({0, 9}, at::kLong)}});
  EXPECT_THROW(open_shards(folder_ / "out"), UserError);
  prepare(config_);
  std::string content = read_file(shard);
  content[content.size() - 1] ^= 1;
  write_file(shard, content);
  const std::string said = error_of([&] { open_shards(folder_ / "out"); });
  EXPECT_NE(said.find("shard-00000.safetensors: the content is damaged"), std::string::npos) << said;
  fs::remove(shard);
  EXPECT_THROW(open_shards(folder_ / "out"), UserError);
}

}  // namespace
}  // namespace molt
