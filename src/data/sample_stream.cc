#include "data/sample_stream.h"

#include <algorithm>
#include <iomanip>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/checksum.h"
#include "base/error.h"
#include "base/json.h"
#include "base/random.h"
#include "data/synthetic/problems.h"
#include "formats/safetensors.h"

namespace molt {

namespace sample_streams {

void append_eos(const Tokenizer& tokenizer, PackedBatch::Sample& sample) {
  const auto eos = tokenizer.eos();
  if (eos && (sample.tokens.empty() || sample.tokens.back() != *eos)) sample.tokens.push_back(*eos);
}

fs::path manifest_path(const fs::path& folder) {
  return folder / "manifest.json";
}

// Of each shard of a finished folder.
std::vector<std::string> shard_checksums(const fs::path& folder) {
  const fs::path path = manifest_path(folder);
  require(fs::exists(path), folder.string(), ": found no manifest.json, expected a folder that `molt prepare` made");
  const Json manifest = read_json(path);
  require(get_or<bool>(manifest, "complete", false, path.string()), folder.string(),
          ": the data is incomplete: run the same `molt prepare` again to finish it");
  return get<std::vector<std::string>>(manifest, "checksums", path.string());
}

std::uint64_t fingerprint(const std::vector<std::string>& checksums) {
  std::uint64_t hash = 0;
  for (const std::string& checksum : checksums) hash = derive_seed(hash, checksum);
  return hash;
}

struct Shard {
  at::Tensor tokens, learn, offsets;  // mapped: int32 (n), uint8 (n), int64 (samples + 1)
};

Shard open_shard(const fs::path& path) {
  const auto file = SafetensorsFile::open(path);
  Shard shard{file.tensor("tokens"), file.tensor("learn"), file.tensor("offsets")};
  const bool typed = shard.tokens.scalar_type() == at::kInt && shard.learn.scalar_type() == at::kByte &&
                     shard.offsets.scalar_type() == at::kLong && shard.tokens.dim() == 1 && shard.learn.dim() == 1 &&
                     shard.offsets.dim() == 1 && shard.offsets.numel() >= 1;
  require(typed, path.string(), ": expected tokens int32 (n), learn uint8 (n) and offsets int64 (samples + 1)");
  const std::int64_t total = shard.tokens.numel(), samples = shard.offsets.numel() - 1;
  const auto* offsets = shard.offsets.const_data_ptr<std::int64_t>();
  bool ordered = offsets[0] == 0 && offsets[samples] == total && shard.learn.numel() == total;
  for (std::int64_t i = 0; i < samples; ++i) ordered = ordered && offsets[i] < offsets[i + 1];
  require(ordered, path.string(), ": offsets: expected numbers that rise from 0 to the number of tokens, ", total);
  return shard;
}

class Shards : public SampleStream {
 public:
  explicit Shards(const fs::path& folder) {
    const std::vector<std::string> checksums = shard_checksums(folder);
    fingerprint_ = fingerprint(checksums);
    for (std::size_t i = 0; i < checksums.size(); ++i) {
      const fs::path path = shard_path(folder, static_cast<std::int64_t>(i));
      const std::string found = crc32c_text(file_crc32c(path));
      require(found == checksums[i], path.string(), ": the content is damaged: found the checksum ", found, ", expected ",
              checksums[i]);
      add(path);
    }
    require(!starts_.empty() && starts_.back() > 0, folder.string(), ": the data holds no samples");
  }

  std::int64_t size() const override { return starts_.back(); }
  std::int64_t tokens() const override { return tokens_; }

  PackedBatch::Sample at(std::int64_t index) const override {
    const auto shard = std::upper_bound(starts_.begin(), starts_.end(), index) - starts_.begin() - 1;
    const Shard& from = shards_[shard];
    const std::int64_t local = index - starts_[shard];
    const auto* offsets = from.offsets.const_data_ptr<std::int64_t>();
    const std::int64_t begin = offsets[local], end = offsets[local + 1];
    const auto* tokens = from.tokens.const_data_ptr<std::int32_t>();
    const auto* learn = from.learn.const_data_ptr<std::uint8_t>();
    PackedBatch::Sample sample;
    sample.tokens.assign(tokens + begin, tokens + end);
    sample.weights.assign(learn + begin, learn + end);
    sample.origin = {fingerprint_, index};
    return sample;
  }

 private:
  void add(const fs::path& path) {
    Shard shard = open_shard(path);
    const std::int64_t total = shard.tokens.numel(), samples = shard.offsets.numel() - 1;
    if (starts_.empty()) starts_.push_back(0);
    starts_.push_back(starts_.back() + samples);
    tokens_ += total;
    shards_.push_back(std::move(shard));
  }

  std::uint64_t fingerprint_ = 0;
  std::vector<Shard> shards_;
  std::vector<std::int64_t> starts_;  // number of samples before each shard, and in all
  std::int64_t tokens_ = 0;
};

class Synthetic : public SampleStream {
 public:
  Synthetic(const SyntheticConfig& config, std::shared_ptr<const Tokenizer> tokenizer)
      : config_(config), tokenizer_(std::move(tokenizer)) {
    config_.check();
  }
  std::int64_t size() const override { return 0; }
  std::int64_t tokens() const override { return 0; }
  PackedBatch::Sample at(std::int64_t index) const override {
    const Problem problem = make_problem(config_, static_cast<std::uint64_t>(index));
    if (problem.completion.empty()) return text_sample(*tokenizer_, problem.prompt);
    if (problem.further.empty()) return completion_sample(*tokenizer_, problem.prompt, problem.completion);
    return conversation(problem);
  }

 private:
  // Solutions are learned and questions are not; the text ends once, behind the last solution.
  PackedBatch::Sample conversation(const Problem& problem) const {
    PackedBatch::Sample sample{tokenizer_->encode(problem.prompt), {}};
    sample.weights.assign(sample.tokens.size(), 0.0f);
    const auto append = [&](const std::string& text, float weight) {
      const auto tokens = tokenizer_->encode(text, /*add_special_tokens=*/false);
      sample.tokens.insert(sample.tokens.end(), tokens.begin(), tokens.end());
      sample.weights.resize(sample.tokens.size(), weight);
    };
    append(problem.completion, 1.0f);
    for (const Problem::Turn& turn : problem.further) {
      append(turn.question, 0.0f);
      append(turn.solution, 1.0f);
    }
    sample_streams::append_eos(*tokenizer_, sample);
    sample.weights.resize(sample.tokens.size(), 1.0f);
    return sample;
  }

  SyntheticConfig config_;
  std::shared_ptr<const Tokenizer> tokenizer_;
};

}  // namespace sample_streams

PackedBatch::Sample text_sample(const Tokenizer& tokenizer, std::string_view text) {
  PackedBatch::Sample sample{tokenizer.encode(text), {}};
  sample_streams::append_eos(tokenizer, sample);
  return sample;
}

PackedBatch::Sample completion_sample(const Tokenizer& tokenizer, std::string_view prompt, std::string_view completion) {
  PackedBatch::Sample sample{tokenizer.encode(prompt), {}};
  const std::size_t learned_from = sample.tokens.size();
  const auto rest = tokenizer.encode(completion, /*add_special_tokens=*/false);
  sample.tokens.insert(sample.tokens.end(), rest.begin(), rest.end());
  sample_streams::append_eos(tokenizer, sample);
  sample.weights.assign(sample.tokens.size(), 0.0f);
  std::fill(sample.weights.begin() + static_cast<std::ptrdiff_t>(learned_from), sample.weights.end(), 1.0f);
  return sample;
}

fs::path shard_path(const fs::path& folder, std::int64_t number) {
  std::ostringstream name;
  name << "shard-" << std::setw(5) << std::setfill('0') << number << ".safetensors";
  return folder / name.str();
}

std::shared_ptr<const SampleStream> open_shards(const fs::path& folder) {
  return std::make_shared<sample_streams::Shards>(folder);
}

std::uint64_t data_fingerprint(const fs::path& folder) {
  return sample_streams::fingerprint(sample_streams::shard_checksums(folder));
}

std::vector<std::int64_t> first_lengths(const fs::path& folder) {
  const fs::path path = shard_path(folder, 0);
  if (folder.empty() || !fs::exists(path)) return {};
  const at::Tensor offsets = sample_streams::open_shard(path).offsets;
  const auto* values = offsets.const_data_ptr<std::int64_t>();
  std::vector<std::int64_t> lengths;
  for (std::int64_t i = 0; i + 1 < offsets.numel(); ++i) lengths.push_back(values[i + 1] - values[i]);
  return lengths;
}

double learned_share(const fs::path& folder) {
  const fs::path path = sample_streams::manifest_path(folder);
  const Json manifest = read_json(path);
  const auto tokens = get<std::int64_t>(manifest, "tokens", path.string()),
             learned = get<std::int64_t>(manifest, "loss_tokens", path.string());
  return tokens > 0 ? static_cast<double>(learned) / static_cast<double>(tokens) : 1;
}

std::shared_ptr<const SampleStream> synthetic_stream(const SyntheticConfig& config, std::shared_ptr<const Tokenizer> tokenizer) {
  return std::make_shared<sample_streams::Synthetic>(config, std::move(tokenizer));
}

}  // namespace molt
