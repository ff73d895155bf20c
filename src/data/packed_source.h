// Batches from a stream of samples: shuffled by seed, packed end to end, the next one made in the background.
#pragma once
#include <memory>
#include <optional>

#include "base/config.h"
#include "data/batch_source.h"
#include "data/sample_stream.h"

namespace molt {

// The data section of a configuration: one of `path` and `synthetic`.
struct DataConfig {
  std::string path;                          // folder of `molt prepare`
  std::optional<SyntheticConfig> synthetic;  // fresh problems
  bool shuffle = true;
  std::int64_t max_length = 0;
  void visit(ConfigVisitor& visitor);
};

// `place` names the section in errors; `tokenizer` serves synthetic data (it may be null for prepared data).
std::shared_ptr<const SampleStream> open_data(const DataConfig& config, std::shared_ptr<const Tokenizer> tokenizer,
                                              const std::string& place);

// Samples in the order of (seed, epoch): a finite stream is permuted anew each epoch, an endless one is read as it comes.
// position() is {"sample": number of samples taken}.
std::unique_ptr<BatchSource> packed_source(std::shared_ptr<const SampleStream> stream, std::uint64_t seed,
                                           const DataConfig& config);

}  // namespace molt
