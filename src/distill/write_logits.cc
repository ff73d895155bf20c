#include "distill/write_logits.h"

#include <ATen/Functions.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>

#include "base/checksum.h"
#include "base/counted.h"
#include "base/error.h"
#include "base/folder_lock.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/progress.h"
#include "data/sample_stream.h"
#include "distill/rank.h"
#include "formats/safetensors.h"

namespace molt {

namespace writing_logits {

// Rows of consecutive samples that are not written yet.
struct Gathered {
  std::vector<std::int64_t> offsets = {0};
  std::vector<std::int32_t> positions;
  std::vector<at::Tensor> ids, log_probs;
  std::int64_t tokens = 0;

  std::int64_t samples() const { return std::ssize(offsets) - 1; }
  std::int64_t rows() const { return offsets.back(); }
};

using Clock = std::chrono::steady_clock;

class Writer {
 public:
  Writer(const Model& teacher, const Tokenizer* tokenizer, const fs::path& data, const fs::path& output,
         const WriteLogitsOptions& options)
      : teacher_(teacher), data_(data), output_(output), options_(options), stream_(open_shards(data)), lock_(output) {
    manifest_.data = fingerprint_text(data_fingerprint(data));
    manifest_.teacher = model_fingerprint(teacher);
    manifest_.tokenizer = tokenizer ? tokenizer_fingerprint(*tokenizer) : "";
    manifest_.vocabulary = teacher.config().vocabulary;
    manifest_.k = options.k;
    manifest_.temperature = options.temperature;
    if (fs::exists(output / "manifest.json")) go_on(LogitsManifest::read(output));
  }

  LogitsManifest run() {
    if (manifest_.complete) {
      log_info(concat(output_.string(), ": has all logits already"));
      return manifest_;
    }
    check_disk();
    Progress progress("logits", stream_->tokens(), "tokens");
    progress.update(manifest_.tokens);
    while (manifest_.samples + gathered_.samples() < stream_->size()) {
      add_batch();
      const double seconds = std::chrono::duration<double>(Clock::now() - written_).count();
      if (gathered_.rows() * manifest_.row_bytes() >= options_.shard_bytes || seconds >= options_.shard_seconds) write_shard();
      progress.update(manifest_.tokens + gathered_.tokens);
      if (interrupt_signal() != 0) write_shard();
      throw_if_interrupted();
    }
    manifest_.complete = true;
    write_shard();
    progress.finish();
    return manifest_;
  }

 private:
  void go_on(const LogitsManifest& found) {
    const auto same = [&](const char* what, const auto& is, const auto& expected) {
      require(is == expected, output_.string(), ": holds logits of another ", what, ": found ", is, ", expected ", expected,
              "; a new --output, or an empty one, takes these");
    };
    same("teacher", found.teacher, manifest_.teacher);
    same("data set", found.data, manifest_.data);
    same("k", found.k, manifest_.k);
    same("temperature", found.temperature, manifest_.temperature);
    manifest_ = found;
    if (!found.complete && found.samples > 0)
      log_info(concat(output_.string(), ": continuing after ", counted(found.samples, "sample")));
  }

  void check_disk() const {
    const fs::path path = data_ / "manifest.json";
    const auto total = get<std::int64_t>(read_json(path), "loss_tokens", path.string());
    const auto bytes = [&](std::int64_t rows) { return static_cast<double>(rows * manifest_.row_bytes()); };
    const auto space = static_cast<double>(fs::space(output_).available);
    log_info(concat(output_.string(), ": ", human_count(static_cast<double>(total)), " learned tokens of ", manifest_.row_bytes(),
                    " bytes each, ", human_bytes(bytes(total)), "; ", human_bytes(space), " are free"));
    require(bytes(total - manifest_.rows) <= space, output_.string(), ": found ", human_bytes(space), " of free disk, expected ",
            human_bytes(bytes(total - manifest_.rows)), "; a smaller --top-k needs less");
  }

  // The next samples that fit one forward pass, at least one.
  std::vector<PackedBatch::Sample> next_samples() const {
    std::vector<PackedBatch::Sample> samples;
    std::int64_t room = options_.batch_tokens;
    for (std::int64_t i = manifest_.samples + gathered_.samples(); i < stream_->size(); ++i) {
      PackedBatch::Sample sample = stream_->at(i);
      const std::int64_t length = std::ssize(sample.tokens);
      if (length > room && !samples.empty()) break;
      for (const std::int32_t token : sample.tokens) {
        require(token >= 0 && token < manifest_.vocabulary, data_.string(), ": sample ", i, ": found token ", token,
                ", expected ids from 0 to ", manifest_.vocabulary - 1, ", which the teacher's vocabulary holds");
      }
      room -= length;
      samples.push_back(std::move(sample));
    }
    return samples;
  }

  void add_batch() {
    const PackedBatch batch = PackedBatch::of(next_samples());
    if (batch.loss_tokens.numel() > 0) {
      const c10::InferenceMode no_gradients;
      const PackedBatch placed = batch.to(teacher_.device());
      const at::Tensor hidden = teacher_.forward(placed).index_select(0, placed.loss_tokens);
      const ops::TopProbabilities top =
          ops::top_probabilities(hidden, teacher_.head_weight(), manifest_.k, manifest_.temperature);
      gathered_.ids.push_back(top.ids.to(at::kInt).cpu());
      gathered_.log_probs.push_back(top.log_probs.to(at::kHalf).cpu());
    }
    const auto* learned = batch.loss_tokens.const_data_ptr<std::int64_t>();
    const auto* const end = learned + batch.loss_tokens.numel();
    for (std::int64_t i = 0; i < batch.sequences.count(); ++i) {
      for (; learned != end && *learned < batch.sequences.offsets[i + 1]; ++learned)
        gathered_.positions.push_back(static_cast<std::int32_t>(*learned - batch.sequences.offsets[i]));
      gathered_.offsets.push_back(std::ssize(gathered_.positions));
    }
    gathered_.tokens += batch.size();
  }

  // What was gathered, if anything, and then the manifest that counts it.
  void write_shard() {
    if (gathered_.samples() > 0) {
      const auto column = [](auto& values, at::ScalarType dtype) {
        return at::from_blob(values.data(), {std::ssize(values)}, at::TensorOptions().dtype(dtype));
      };
      const auto joined = [](const std::vector<at::Tensor>& parts, std::int64_t width, at::ScalarType dtype) {
        return parts.empty() ? at::empty({0, width}, dtype) : at::cat(parts).to(dtype);
      };
      const fs::path path = shard_path(output_, std::ssize(manifest_.checksums));
      const at::ScalarType id = manifest_.id_bytes() == 2 ? at::kUInt16 : at::kInt;
      write_safetensors(path, {{"offsets", column(gathered_.offsets, at::kLong)},
                               {"positions", column(gathered_.positions, at::kInt)},
                               {"ids", joined(gathered_.ids, manifest_.k, id)},
                               {"log_probs", joined(gathered_.log_probs, manifest_.k + 1, at::kHalf)}});
      manifest_.checksums.push_back(crc32c_text(file_crc32c(path)));
      manifest_.first_samples.push_back(manifest_.samples);
      manifest_.samples += gathered_.samples();
      manifest_.tokens += gathered_.tokens;
      manifest_.rows += gathered_.rows();
      gathered_ = {};
    }
    write_json(output_ / "manifest.json", manifest_.to_json());
    written_ = Clock::now();
  }

  const Model& teacher_;
  const fs::path data_, output_;
  const WriteLogitsOptions options_;
  const std::shared_ptr<const SampleStream> stream_;
  const FolderLock lock_;
  LogitsManifest manifest_;
  Gathered gathered_;
  Clock::time_point written_ = Clock::now();
};

}  // namespace writing_logits

LogitsManifest write_top_logits(const Model& teacher, const Tokenizer* tokenizer, const fs::path& data, const fs::path& output,
                                const WriteLogitsOptions& options) {
  const std::int64_t vocabulary = teacher.config().vocabulary;
  require(options.k >= 1 && options.k <= vocabulary, "--top-k: found ", options.k, ", expected a number from 1 to ", vocabulary,
          ", the teacher's vocabulary");
  require(options.temperature > 0, "--temperature: found ", options.temperature, ", expected a positive number");
  return writing_logits::Writer(teacher, tokenizer, data, output, options).run();
}

}  // namespace molt
