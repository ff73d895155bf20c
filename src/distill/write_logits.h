// A teacher's pass over a data set, kept as its largest probabilities (stored_logits.h).
#pragma once
#include <cstdint>
#include <string>

#include "base/files.h"
#include "distill/stored_logits.h"
#include "model/model.h"

namespace molt {

struct WriteLogitsOptions {
  std::int64_t k = 64;
  double temperature = 1;              // of the distillation that will learn from them
  std::int64_t batch_tokens = 4096;    // of one forward pass; a longer sample has one of its own
  std::int64_t shard_bytes = 1 << 28;  // of a file, about
  double shard_seconds = 600;          // after which a smaller one is written: what a kill costs at most
};

// Writes the logits of every learned token of `data`, a folder of token shards. Says beforehand how many bytes they take;
// UserError where so many are not free. Whole shards survive a kill, everything that was computed an interruption (Interrupted),
// and the same call continues behind them. `output` that holds the logits of another teacher or data set, or others of this one,
// is a UserError. `tokenizer` is the teacher's; null: it has none.
LogitsManifest write_top_logits(const Model& teacher, const Tokenizer* tokenizer, const fs::path& data, const fs::path& output,
                                const WriteLogitsOptions& options);

}  // namespace molt
