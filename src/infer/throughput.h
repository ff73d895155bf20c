// How fast models read prompts and generate, measured beside one another.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "model/model.h"

namespace molt {

struct ThroughputOptions {
  static constexpr std::int64_t kLargest = 0;  // a batch: as many sequences as the GPU's memory holds, up to 4096
  std::vector<std::int64_t> batches = {1, 8};
  std::vector<std::int64_t> contexts = {1024};  // tokens
  std::int64_t tokens = 32;                     // decoded by each sequence in a run
  std::int64_t runs = 5;
  std::int64_t prefill_tokens = 2048;  // of one step at most
  std::int64_t requests = 0;           // not 0: measured instead of the above, with one token in and `tokens` out each
  std::uint64_t seed = 0;
};

// One model in one setting. Rates are tokens/s of all sequences together.
struct ThroughputRow {
  // Reading one prompt of `context` tokens; decoding `batch` sequences that have `context` already; answering `batch` requests
  // from making the engine to the last token.
  enum class Work { prefill, decode, requests };
  std::int64_t model = 0;  // which of those given
  Work work = Work::decode;
  std::int64_t batch = 1;
  std::int64_t context = 0;
  double median = 0, lowest = 0, highest = 0;  // over the runs
  double ratio = 1;                            // to the first model's rate in the same run, median; 0 where it has none
  std::int64_t cache_bytes = 0;                // of the batch, at this context
};

// Random tokens, greedy sampling included. On the CPU the models take turns in each run, so that what else the machine does meets
// all of them; on a GPU they come one after another, as their caches would not fit together. Caches are filled with random
// numbers up to the context, without reading a prompt for it. Before its runs each model reads a prompt of that length, or
// decodes a few tokens, untimed. Rows by context, then prefill before the batches, then model. `progress(done, total)` counts
// runs of one model. A setting whose caches do not fit into a GPU's memory has no row. UserError for options below 1, and for
// kLargest where there is no GPU; Interrupted between runs.
std::vector<ThroughputRow> measure_throughput(const std::vector<const Model*>& models, const ThroughputOptions& options,
                                              const std::function<void(std::int64_t done, std::int64_t total)>& progress = {});

}  // namespace molt
