#include "distill/stored_logits.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <iomanip>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/checksum.h"
#include "base/error.h"
#include "base/random.h"
#include "data/sample_stream.h"
#include "formats/safetensors.h"

namespace molt {

namespace stored_logits {

struct Shard {
  at::Tensor offsets, positions, ids, log_probs;

  static Shard open(const fs::path& path, const LogitsManifest& manifest) {
    const auto file = SafetensorsFile::open(path);
    Shard shard{file.tensor("offsets"), file.tensor("positions"), file.tensor("ids"), file.tensor("log_probs")};
    const std::int64_t rows = shard.positions.numel(), k = manifest.k;
    const at::ScalarType id = manifest.id_bytes() == 2 ? at::kUInt16 : at::kInt;
    require(shard.offsets.scalar_type() == at::kLong && shard.offsets.dim() == 1 && shard.offsets.numel() > 1 &&
                shard.positions.scalar_type() == at::kInt && shard.ids.scalar_type() == id &&
                shard.log_probs.scalar_type() == at::kHalf && shard.ids.sizes() == at::IntArrayRef({rows, k}) &&
                shard.log_probs.sizes() == at::IntArrayRef({rows, k + 1}),
            path.string(), ": expected offsets int64 (samples + 1), positions int32 (rows), ids ", id, " (rows, ", k,
            ") and log_probs float16 (rows, ", k + 1, ")");
    const auto* offsets = shard.offsets.const_data_ptr<std::int64_t>();
    const std::int64_t samples = shard.offsets.numel() - 1;
    require(offsets[0] == 0 && offsets[samples] == rows && std::is_sorted(offsets, offsets + samples), path.string(),
            ": offsets: expected numbers that rise from 0 to the number of rows, ", rows);
    return shard;
  }
};

// Copies one row; Id is the type on disk.
template <class Id>
void copy_ids(const at::Tensor& from, std::int64_t row, std::int32_t* to) {
  const std::int64_t k = from.size(1);
  const Id* begin = static_cast<const Id*>(from.const_data_ptr()) + row * k;
  std::copy(begin, begin + k, to);
}

}  // namespace stored_logits

struct StoredLogits::Folder {
  std::string name;
  LogitsManifest manifest;
  std::uint64_t data = 0;
  std::vector<stored_logits::Shard> shards;
};

std::string fingerprint_text(std::uint64_t fingerprint) {
  std::ostringstream digits;
  digits << std::hex << std::setw(16) << std::setfill('0') << fingerprint;
  return digits.str();
}

std::string tokenizer_fingerprint(const Tokenizer& tokenizer) {
  std::uint64_t hash = 0;
  for (std::int64_t id = 0; id < tokenizer.vocabulary(); ++id)
    hash = derive_seed(hash, tokenizer.token(static_cast<std::int32_t>(id)));
  return fingerprint_text(hash);
}

Json LogitsManifest::to_json() const {
  return {{"data", data},
          {"teacher", teacher},
          {"tokenizer", tokenizer},
          {"vocabulary", vocabulary},
          {"k", k},
          {"temperature", temperature},
          {"samples", samples},
          {"tokens", tokens},
          {"rows", rows},
          {"first_samples", first_samples},
          {"checksums", checksums},
          {"complete", complete}};
}

LogitsManifest LogitsManifest::read(const fs::path& folder) {
  const fs::path path = folder / "manifest.json";
  const std::string place = path.string();
  require(fs::exists(path), folder.string(), ": found no manifest.json, expected a folder that `molt logits --top-k` made");
  const Json json = read_json(path);
  LogitsManifest manifest;
  manifest.k = get<std::int64_t>(json, "k", place);
  manifest.data = get<std::string>(json, "data", place);
  manifest.teacher = get<std::string>(json, "teacher", place);
  manifest.tokenizer = get<std::string>(json, "tokenizer", place);
  manifest.vocabulary = get<std::int64_t>(json, "vocabulary", place);
  manifest.temperature = get<double>(json, "temperature", place);
  manifest.samples = get<std::int64_t>(json, "samples", place);
  manifest.tokens = get<std::int64_t>(json, "tokens", place);
  manifest.rows = get<std::int64_t>(json, "rows", place);
  manifest.first_samples = get<std::vector<std::int64_t>>(json, "first_samples", place);
  manifest.checksums = get<std::vector<std::string>>(json, "checksums", place);
  manifest.complete = get<bool>(json, "complete", place);
  require(manifest.first_samples.size() == manifest.checksums.size() && manifest.k >= 1 && manifest.k <= manifest.vocabulary,
          place, ": found ", manifest.first_samples.size(), " first_samples, ", manifest.checksums.size(), " checksums and k ",
          manifest.k, " of ", manifest.vocabulary, ", expected lists of one length and a k within the vocabulary");
  return manifest;
}

StoredLogits::StoredLogits(const std::vector<std::string>& folders, std::string place) : place_(std::move(place)) {
  MOLT_CHECK(!folders.empty(), "logits of no folder");
  for (const std::string& name : folders) {
    Folder folder{name, LogitsManifest::read(name), 0, {}};
    const LogitsManifest& manifest = folder.manifest;
    require(manifest.complete, place_, ": ", name,
            ": the logits are incomplete: run the same `molt logits` again to finish them");
    folder.data = std::stoull(manifest.data, nullptr, 16);
    const LogitsManifest& first = folders_.empty() ? manifest : folders_.front().manifest;
    require(manifest.teacher == first.teacher && manifest.vocabulary == first.vocabulary && manifest.k == first.k &&
                manifest.temperature == first.temperature,
            place_, ": found logits of teacher ", manifest.teacher, ", k ", manifest.k, ", temperature ", manifest.temperature,
            " in ", name, ", expected teacher ", first.teacher, ", k ", first.k, ", temperature ", first.temperature, " as in ",
            folders.front());
    std::vector<std::string> found(manifest.checksums.size());
    at::parallel_for(0, std::ssize(found), 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) found[i] = crc32c_text(file_crc32c(shard_path(name, i)));
    });
    for (std::size_t i = 0; i < found.size(); ++i) {
      const fs::path path = shard_path(name, static_cast<std::int64_t>(i));
      require(found[i] == manifest.checksums[i], path.string(), ": the content is damaged: found the checksum ", found[i],
              ", expected ", manifest.checksums[i]);
      folder.shards.push_back(stored_logits::Shard::open(path, manifest));
    }
    folders_.push_back(std::move(folder));
  }
}

StoredLogits::~StoredLogits() = default;

const LogitsManifest& StoredLogits::about() const {
  return folders_.front().manifest;
}

void StoredLogits::require_data(const std::string& data, const std::string& data_place) const {
  const std::uint64_t fingerprint = data_fingerprint(data);
  for (const Folder& folder : folders_) {
    if (folder.data != fingerprint) continue;
    const fs::path path = fs::path(data) / "manifest.json";
    const auto learned = get<std::int64_t>(read_json(path), "loss_tokens", path.string());
    require(folder.manifest.rows == learned, place_, ": ", folder.name, ": found logits of ", folder.manifest.rows,
            " tokens, expected them of the ", learned, " that ", data, " learns from");
    return;
  }
  std::string names;
  for (const Folder& folder : folders_) names += (names.empty() ? "" : ", ") + folder.name;
  fail(data_place, ": found data ", data, " that ", place_, " (", names, ") is not of, expected data whose logits ",
       "`molt logits --top-k` has written, as they were then");
}

ops::TopProbabilities StoredLogits::rows(const PackedBatch& batch) const {
  const std::int64_t k = about().k;
  const auto host = at::TensorOptions().pinned_memory(batch.device().is_cuda());
  ops::TopProbabilities rows{at::zeros({batch.size(), k}, host.dtype(at::kInt)),
                             at::full({batch.size(), k + 1}, NAN, host.dtype(at::kHalf))};
  auto* ids = rows.ids.mutable_data_ptr<std::int32_t>();
  auto* log_probs = rows.log_probs.mutable_data_ptr<at::Half>();
  for (std::int64_t i = 0; i < batch.sequences.count(); ++i) {
    const SampleOrigin origin = static_cast<std::size_t>(i) < batch.origins.size() ? batch.origins[i] : SampleOrigin{};
    const auto folder =
        std::find_if(folders_.begin(), folders_.end(), [&](const Folder& each) { return each.data == origin.data; });
    require(origin.data != 0 && folder != folders_.end(), place_,
            ": found a sample whose logits are not stored, expected those of ", "the data for which they were written");
    const auto& starts = folder->manifest.first_samples;
    const auto shard = std::upper_bound(starts.begin(), starts.end(), origin.sample) - starts.begin() - 1;
    const stored_logits::Shard& from = folder->shards[shard];
    const std::int64_t local = origin.sample - starts[shard], begin = batch.sequences.offsets[i],
                       length = batch.sequences.offsets[i + 1] - begin;
    MOLT_CHECK(local + 1 < from.offsets.numel(), "logits: sample ", origin.sample, " is behind the last one of ", folder->name);
    const auto* offsets = from.offsets.const_data_ptr<std::int64_t>() + local;
    const auto* positions = from.positions.const_data_ptr<std::int32_t>();
    const auto* stored = from.log_probs.const_data_ptr<at::Half>();
    for (std::int64_t row = offsets[0]; row < offsets[1] && positions[row] + 1 < length; ++row) {
      const std::int64_t token = begin + positions[row];
      const auto copy =
          folder->manifest.id_bytes() == 2 ? stored_logits::copy_ids<std::uint16_t> : stored_logits::copy_ids<std::int32_t>;
      copy(from.ids, row, ids + token * k);
      std::copy_n(stored + row * (k + 1), k + 1, log_probs + token * (k + 1));
    }
  }
  return rows;
}

}  // namespace molt
