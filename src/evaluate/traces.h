// Training data from a model's own right answers.
#pragma once
#include <cstdint>

#include "base/files.h"
#include "evaluate/task.h"

namespace molt {

struct TraceCounts {
  std::int64_t samples = 0;
  std::int64_t wrong = 0;
  std::int64_t unfinished = 0;  // right, but cut off at the limit of tokens: their end would be learned as one
  std::int64_t repeated = 0;    // the same completion of the same prompt as a kept one, up to white space
  std::int64_t kept = 0;
  std::int64_t items = 0, solved = 0;  // items in all, and those of which something was kept
};

// From samples.jsonl of an evaluation of `task`, the right ones as lines that `molt prepare` reads, in the order of items and
// samples: {"id", "sample", "prompt", "completion", "answer"} with the texts as they were read and written, or for the chat form
// {"id", "sample", "messages", "answer"}, where what was thought stands in "reasoning_content". The file is whole or absent.
TraceCounts write_traces(const Task& task, const fs::path& samples, const fs::path& output);

}  // namespace molt
