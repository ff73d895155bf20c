// Samples by number: what a source draws from, wherever it lies.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "base/files.h"
#include "data/synthetic/config.h"
#include "model/batch.h"
#include "text/tokenizer.h"

namespace molt {

class SampleStream {
 public:
  virtual ~SampleStream() = default;
  // Number of samples; 0: endless.
  virtual std::int64_t size() const = 0;
  // Tokens in all; 0: endless.
  virtual std::int64_t tokens() const = 0;
  // Sample `index` in [0, size()), or any number of an endless stream. Safe to call from several threads.
  virtual PackedBatch::Sample at(std::int64_t index) const = 0;
};

// How a text becomes a sample: `<bos> prompt completion <eos>`, the loss on completion and <eos>; or `<bos> text <eos>`, the loss
// on all. Prompt and completion are tokenized apart, as they are when the prompt is all there is. Special tokens that the
// tokenizer's own template adds are kept.
PackedBatch::Sample text_sample(const Tokenizer& tokenizer, std::string_view text);
PackedBatch::Sample completion_sample(const Tokenizer& tokenizer, std::string_view prompt, std::string_view completion);

// Where the shard of a number lies: "shard-00012.safetensors".
fs::path shard_path(const fs::path& folder, std::int64_t number);
// The folder that prepare() wrote. UserError if it is incomplete or broken. Samples have their origin.
std::shared_ptr<const SampleStream> open_shards(const fs::path& folder);
// Of the content of such a folder, by its manifest: two with the same samples in the same shards have the same.
std::uint64_t data_fingerprint(const fs::path& folder);
// Of such a folder's tokens the share that is learned, by its manifest; 1 of an empty one.
double learned_share(const fs::path& folder);
// Tokens of each sample in such a folder's first shard, without a look at the others; none where the folder is not there yet.
// UserError for a damaged shard.
std::vector<std::int64_t> first_lengths(const fs::path& folder);
// Fresh problems without end, tokenized on the fly.
std::shared_ptr<const SampleStream> synthetic_stream(const SyntheticConfig& config, std::shared_ptr<const Tokenizer> tokenizer);

}  // namespace molt
