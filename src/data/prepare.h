// Text to token shards that training maps into memory.
//
// A folder holds manifest.json and shard-00000.safetensors, …, each with
//   tokens   int32 (n)            all samples end to end
//   learn    uint8 (n)            1 where predicting this token counts in the loss
//   offsets  int64 (samples + 1)  where each sample begins
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "base/config.h"
#include "base/files.h"

namespace molt {

struct PrepareConfig {
  std::vector<std::string> input;  // JSONL files
  std::string tokenizer;           // folder or tokenizer.json
  std::string output;              // folder
  std::string text = "text";       // key of plain text
  std::string prompt = "prompt";   // keys of a prompt and its completion
  std::string completion = "completion";
  std::int64_t max_length = 0;              // tokens; longer samples are dropped and counted; 0: no limit
  std::int64_t max_malformed = 0;           // lines that may be skipped before the run fails
  std::int64_t shard_tokens = 100'000'000;  // of one shard, about
  void visit(ConfigVisitor& visitor);
};

struct PrepareResult {
  std::int64_t samples = 0, tokens = 0, loss_tokens = 0;
  std::int64_t dropped = 0;    // longer than max_length
  std::int64_t malformed = 0;  // skipped lines, each reported
};

// Tokenizes on every core. Whole shards survive an interruption, and the next call with the same configuration continues after
// them; with a different one, or on a finished folder, it starts anew. A line is an object with the text key, or with prompt and
// completion.
PrepareResult prepare(const PrepareConfig& config);

}  // namespace molt
