#include "distill/stored_logits.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/checksum.h"
#include "base/counted.h"
#include "base/error.h"
#include "base/random.h"
#include "data/sample_stream.h"
#include "formats/safetensors.h"

namespace molt {

namespace stored_logits {

struct Shard {
  at::Tensor offsets, positions, ids, log_probs;

  // Of that many samples. Nothing in it can lead out of a batch or of the vocabulary.
  static Shard open(const fs::path& path, const LogitsManifest& manifest, std::int64_t samples) {
    const auto file = SafetensorsFile::open(path);
    Shard shard{file.tensor("offsets"), file.tensor("positions"), file.tensor("ids"), file.tensor("log_probs")};
    const std::int64_t rows = shard.positions.numel(), k = manifest.k;
    const at::ScalarType id = manifest.id_bytes() == 2 ? at::kUInt16 : at::kInt;
    require(shard.offsets.scalar_type() == at::kLong && shard.offsets.sizes() == at::IntArrayRef({samples + 1}) &&
                shard.positions.scalar_type() == at::kInt && shard.positions.dim() == 1 && shard.ids.scalar_type() == id &&
                shard.log_probs.scalar_type() == at::kHalf && shard.ids.sizes() == at::IntArrayRef({rows, k}) &&
                shard.log_probs.sizes() == at::IntArrayRef({rows, k + 1}),
            path.string(), ": expected offsets int64 (", samples + 1, "), positions int32 (rows), ids ", id, " (rows, ", k,
            ") and log_probs float16 (rows, ", k + 1, ")");
    const auto* offsets = shard.offsets.const_data_ptr<std::int64_t>();
    require(offsets[0] == 0 && offsets[samples] == rows && std::is_sorted(offsets, offsets + samples + 1), path.string(),
            ": offsets: expected numbers that rise from 0 to the number of rows, ", rows);
    const auto* positions = shard.positions.const_data_ptr<std::int32_t>();
    for (std::int64_t i = 0; i < samples; ++i) {
      std::int32_t before = -1;
      for (std::int64_t row = offsets[i]; row < offsets[i + 1]; before = positions[row++]) {
        require(positions[row] > before, path.string(), ": positions: found ", positions[row], " in row ", row,
                ", expected numbers that rise from 0 in each sample");
      }
    }
    id == at::kInt ? shard.check_ids<std::int32_t>(path, manifest) : shard.check_ids<std::uint16_t>(path, manifest);
    return shard;
  }

 private:
  template <class Id>
  void check_ids(const fs::path& path, const LogitsManifest& manifest) const {
    const Id* const begin = static_cast<const Id*>(ids.const_data_ptr());
    const auto outside = [&](Id each) { return static_cast<std::int64_t>(each) >= manifest.vocabulary || each < Id{0}; };
    const Id* const found = std::find_if(begin, begin + ids.numel(), outside);
    require(found == begin + ids.numel(), path.string(), ": ids: found ", *found, " in row ", (found - begin) / manifest.k,
            ", expected 0 to ", manifest.vocabulary - 1);
  }
};

void check(const LogitsManifest& manifest, const std::string& place) {
  require(manifest.data.size() == 16 && manifest.data.find_first_not_of("0123456789abcdef") == std::string::npos, place,
          ": data: found \"", manifest.data, "\", expected 16 hexadecimal digits");
  const auto within = [&](const char* key, std::int64_t found, std::int64_t least, std::int64_t most) {
    require(found >= least && found <= most, place, ": ", key, ": found ", found, ", expected ", least, " to ", most);
  };
  constexpr std::int64_t many = std::int64_t{1} << 48;
  within("vocabulary", manifest.vocabulary, 1, std::numeric_limits<std::int32_t>::max());
  within("k", manifest.k, 1, manifest.vocabulary);
  within("samples", manifest.samples, 0, many);
  within("tokens", manifest.tokens, 0, many);
  within("rows", manifest.rows, 0, many);
  require(manifest.temperature > 0, place, ": temperature: found ", manifest.temperature, ", expected a positive number");
  require(manifest.first_samples.size() == manifest.checksums.size(), place, ": first_samples: found ",
          manifest.first_samples.size(), ", expected one for each of the ", manifest.checksums.size(), " checksums");
  require(manifest.first_samples.empty() == (manifest.samples == 0), place, ": samples: found ", manifest.samples, " in ",
          counted(std::ssize(manifest.first_samples), "shard"));
  std::int64_t least = 0;  // a shard holds a sample at least
  for (const std::int64_t first : manifest.first_samples) {
    require(first >= least && (least > 0 || first == 0) && first < manifest.samples, place, ": first_samples: found ", first,
            ", expected numbers that rise from 0 to less than ", counted(manifest.samples, "sample"));
    least = first + 1;
  }
}

// Copies one row; Id is the type on disk.
template <class Id>
void copy_ids(const at::Tensor& from, std::int64_t row, std::int32_t* to) {
  const std::int64_t k = from.size(1);
  const Id* begin = static_cast<const Id*>(from.const_data_ptr()) + row * k;
  std::copy(begin, begin + k, to);
}

Shard open_shard(const fs::path& folder, const LogitsManifest& manifest, std::int64_t number) {
  const fs::path path = shard_path(folder, number);
  const std::string found = crc32c_text(file_crc32c(path)), &expected = manifest.checksums[number];
  require(found == expected, path.string(), ": the content is damaged: found the checksum ", found, ", expected ", expected);
  const auto& starts = manifest.first_samples;
  const std::int64_t end = number + 1 < std::ssize(starts) ? starts[number + 1] : manifest.samples;
  return Shard::open(path, manifest, end - starts[number]);
}

}  // namespace stored_logits

struct StoredLogits::Folder {
  std::string name;
  LogitsManifest manifest;
  std::uint64_t data = 0;
  std::vector<stored_logits::Shard> shards;
};

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
  stored_logits::check(manifest, place);
  return manifest;
}

std::string logits_fingerprint(const fs::path& folder) {
  const LogitsManifest manifest = LogitsManifest::read(folder);
  std::uint64_t hash = derive_seed(0, manifest.teacher);
  for (const std::string& checksum : manifest.checksums) hash = derive_seed(hash, checksum);
  return fingerprint_text(hash);
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
    folder.shards.resize(manifest.checksums.size());
    at::parallel_for(0, std::ssize(folder.shards), 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) folder.shards[i] = stored_logits::open_shard(name, manifest, i);
    });
    std::int64_t rows = 0;
    for (const stored_logits::Shard& shard : folder.shards) rows += shard.positions.numel();
    require(rows == manifest.rows, name, ": found ", counted(rows, "row"), ", expected ", manifest.rows, " as in manifest.json");
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
    require(folder.manifest.rows == learned, place_, ": ", folder.name, ": found logits of ",
            counted(folder.manifest.rows, "token"), ", expected them of the ", learned, " that ", data, " learns from");
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
    require(origin.sample >= 0 && origin.sample < folder->manifest.samples, place_, ": ", folder->name, ": found logits of ",
            counted(folder->manifest.samples, "sample"), ", expected them of sample ", origin.sample, ", too");
    const auto& starts = folder->manifest.first_samples;
    const auto shard = std::upper_bound(starts.begin(), starts.end(), origin.sample) - starts.begin() - 1;
    const stored_logits::Shard& from = folder->shards[shard];
    const std::int64_t local = origin.sample - starts[shard], begin = batch.sequences.offsets[i],
                       length = batch.sequences.offsets[i + 1] - begin;
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
