// Text to token shards that training maps into memory.
//
// A folder holds manifest.json and shard-00000.safetensors, …, each with
//   tokens   int32 (n)            all samples end to end
//   learn    uint8 (n)            1 where predicting this token counts in the loss
//   offsets  int64 (samples + 1)  where each sample begins
// manifest.json holds each shard's CRC-32C, which is compared when the folder is opened.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "base/config.h"
#include "base/files.h"

namespace molt {

struct PrepareConfig {
  std::vector<std::string> input;  // JSONL files, plain, gzip or Zstandard, and Parquet files
  std::string tokenizer;           // folder or tokenizer.json
  std::string output;              // folder
  std::string text = "text";       // key of plain text
  std::string prompt = "prompt";   // keys of a prompt and its completion
  std::string completion = "completion";
  std::string messages = "messages";  // key of a conversation, beside "tools" if it has any
  std::string tokens = "tokens";      // keys of ids and of whether each is learned from: 0 or 1
  std::string learn = "learn";
  std::vector<std::string> learn_roles = {"assistant"};  // of a conversation
  bool learn_reasoning = true;                           // what its messages think
  std::int64_t max_length = 0;                           // tokens; 0: no limit
  std::string long_samples = "drop";                     // drop, cut or split what is longer than max_length
  std::int64_t max_malformed = 0;                        // lines that may be skipped before the run fails
  std::int64_t shard_tokens = 100'000'000;               // of one shard, about
  void visit(ConfigVisitor& visitor);
};

struct PrepareResult {
  std::int64_t samples = 0, tokens = 0, loss_tokens = 0;
  std::int64_t dropped = 0;    // longer than max_length, or too short to predict anything
  std::int64_t shortened = 0;  // cut or split because they are longer than max_length
  std::int64_t malformed = 0;  // skipped lines, each reported
};

// Tokenizes on every core. Whole shards survive an interruption, and the next call continues after them if the configuration, the
// tokenizer and the lines that are done are the same; otherwise, or on a finished folder, it starts anew. UserError when another
// process works in the folder. A line (or row, whose columns are the keys) is an object with one of
//   {"text"}                    learned whole
//   {"prompt", "completion"}    the completion is learned
//   {"messages", "tools"}       laid out by the chat template of the tokenizer's folder (chat_sample.h)
//   {"tokens", "learn"}         as it is; without "learn", every token is learned
PrepareResult prepare(const PrepareConfig& config);

}  // namespace molt
