// How fast models read prompts and generate, measured beside one another.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "model/model.h"

namespace molt {

struct ThroughputOptions {
  std::vector<std::int64_t> batches = {1, 8};
  std::vector<std::int64_t> contexts = {1024};  // tokens
  std::int64_t tokens = 32;                     // decoded by each sequence in a run
  std::int64_t runs = 5;
  std::int64_t prefill_tokens = 2048;  // of one step at most
  std::uint64_t seed = 0;
};

// One model in one setting. Rates are tokens/s of all sequences together.
struct ThroughputRow {
  std::int64_t model = 0;  // which of those given
  bool prefill = false;    // reads one prompt of `context` tokens; else decodes `batch` sequences that have `context` already
  std::int64_t batch = 1;
  std::int64_t context = 0;
  double median = 0, lowest = 0, highest = 0;  // over the runs
  double ratio = 1;                            // to the first model's rate in the same run, median
  std::int64_t cache_bytes = 0;                // of the batch, at this context
};

// Random tokens, greedy sampling included. In each run the models take turns, so that what else the machine does meets all of
// them. Caches are filled with random numbers up to the context, without reading a prompt for it. Rows by context, then prefill
// before the batches, then model. `progress(done, total)` counts runs of one model. UserError for options below 1; Interrupted
// between runs.
std::vector<ThroughputRow> measure_throughput(const std::vector<const Model*>& models, const ThroughputOptions& options,
                                              const std::function<void(std::int64_t done, std::int64_t total)>& progress = {});

}  // namespace molt
