#include "data/prepare.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/checksum.h"
#include "base/error.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/trim.h"
#include "data/line_sample.h"
#include "data/records.h"
#include "data/sample_stream.h"
#include "formats/safetensors.h"

namespace molt {

void PrepareConfig::visit(ConfigVisitor& v) {
  v.field("input", input, "JSONL files, one object a line (gzip and zstd are read as they are), and Parquet files");
  v.field("tokenizer", tokenizer, "Folder with tokenizer.json (a model), or the file itself");
  v.field("output", output, "Folder to write");
  v.field("text", text, "Key of plain text: the loss is on all of it");
  v.field("prompt", prompt, "Key of a prompt: no loss on it");
  v.field("completion", completion, "Key of the prompt's completion: the loss is on it");
  v.field("messages", messages, "Key of a conversation, laid out by the tokenizer folder's chat template");
  v.field("tokens", tokens, "Key of ids that are tokens already");
  v.field("learn", learn, "Key of a 0 or 1 for each of them: whether it is learned from; without it, all are");
  v.field("learn_roles", learn_roles, "Whose messages of a conversation are learned from");
  v.field("learn_reasoning", learn_reasoning, "Learn what those messages think, too");
  v.field("max_length", max_length, "Most tokens of a sample; 0: no limit");
  v.choice("long_samples", long_samples, {"drop", "cut", "split"},
           "What happens to longer ones: left out, only the beginning kept, or every piece a sample of its own");
  v.field("max_malformed", max_malformed, "Malformed lines to report and skip before the run fails");
  v.field("shard_tokens", shard_tokens, "Tokens of one shard, about");
  if (!v.reading()) return;
  require(max_length == 0 || max_length >= 2, v.place(), ": max_length: found ", max_length, ", expected 0 or at least 2");
  require(max_malformed >= 0, v.place(), ": max_malformed: found ", max_malformed, ", expected a number from 0 up");
  require(shard_tokens >= 1, v.place(), ": shard_tokens: found ", shard_tokens, ", expected a number from 1 up");
}

namespace preparing {

constexpr std::size_t kBatchLines = 2048;  // tokenized together on every core

struct Tokenized {
  PackedBatch::Sample sample;
  std::string error;  // the line is malformed
};

Tokenized tokenize(const Records::Record& line, const fs::path& file, const LineSampler& sampler) {
  try {
    return {sampler.sample(line.text, concat(file.string(), ":", line.number)), ""};
  } catch (const UserError& error) {
    return {{}, error.what()};
  }
}

// What is known of a folder so far; written after each shard, so that a killed run goes on behind the last whole one.
struct Manifest {
  PrepareResult result;
  std::vector<std::string> checksums;  // CRC-32C, one a shard
  std::size_t file = 0;                // of config.input
  std::int64_t line = 0;               // lines of that file that are done
  bool complete = false;

  Json to_json(const std::string& config, std::int64_t vocabulary) const {
    return {{"config", config},
            {"vocabulary", vocabulary},
            {"samples", result.samples},
            {"tokens", result.tokens},
            {"loss_tokens", result.loss_tokens},
            {"dropped", result.dropped},
            {"shortened", result.shortened},
            {"malformed", result.malformed},
            {"shards", checksums.size()},
            {"checksums", checksums},
            {"next_file", file},
            {"next_line", line},
            {"complete", complete}};
  }

  static std::optional<Manifest> read(const fs::path& path, const std::string& config) {
    if (!fs::exists(path)) return std::nullopt;
    const Json json = read_json(path);
    const std::string place = path.string();
    if (get_or<std::string>(json, "config", "", place) != config || get_or<bool>(json, "complete", true, place))
      return std::nullopt;
    Manifest manifest;
    manifest.result = {get<std::int64_t>(json, "samples", place),     get<std::int64_t>(json, "tokens", place),
                       get<std::int64_t>(json, "loss_tokens", place), get<std::int64_t>(json, "dropped", place),
                       get<std::int64_t>(json, "shortened", place),   get<std::int64_t>(json, "malformed", place)};
    manifest.checksums = get<std::vector<std::string>>(json, "checksums", place);
    manifest.file = static_cast<std::size_t>(get<std::int64_t>(json, "next_file", place));
    manifest.line = get<std::int64_t>(json, "next_line", place);
    return manifest;
  }
};

class Preparation {
 public:
  explicit Preparation(const PrepareConfig& config)
      : config_(config),
        folder_(config.output),
        described_(to_yaml(config)),
        sampler_(config_),
        progress_("prepare", total_bytes(config), "B") {
    std::error_code error;
    is_new_ = fs::create_directories(folder_, error);
    require(!error, folder_.string(), ": cannot create the folder: ", error.message());
    if (auto found = Manifest::read(folder_ / "manifest.json", described_)) {
      manifest_ = *found;
      log_info(concat(folder_.string(), ": continuing after ", manifest_.result.samples, " samples"));
      for (std::size_t i = 0; i < manifest_.file; ++i) bytes_before_ += static_cast<std::int64_t>(fs::file_size(config.input[i]));
    }
  }

  // A new folder into which nothing was written does not stay.
  ~Preparation() {
    std::error_code ignored;
    if (is_new_ && fs::is_empty(folder_, ignored)) fs::remove(folder_, ignored);
  }
  Preparation(const Preparation&) = delete;
  Preparation& operator=(const Preparation&) = delete;

  PrepareResult run() {
    for (; manifest_.file < config_.input.size(); ++manifest_.file, manifest_.line = 0) {
      read_one(config_.input[manifest_.file]);
      bytes_before_ += static_cast<std::int64_t>(fs::file_size(config_.input[manifest_.file]));
    }
    require(manifest_.result.samples + static_cast<std::int64_t>(offsets_.size()) > 1, config_.output,
            ": the input holds no sample");
    manifest_.complete = true;
    write_shard();
    progress_.finish();
    return manifest_.result;
  }

 private:
  static std::int64_t total_bytes(const PrepareConfig& config) {
    std::int64_t total = 0;
    for (const auto& path : config.input) total += static_cast<std::int64_t>(MappedFile::open(path)->size());
    return total;
  }

  // Of what a record may hold.
  std::vector<std::string> keys() const {
    return {config_.text, config_.prompt, config_.completion, config_.messages, "tools", config_.tokens, config_.learn};
  }

  void read_one(const fs::path& path) {
    const std::unique_ptr<Records> records = open_records(path, keys());
    for (auto lines = records->next(kBatchLines); !lines.empty(); lines = records->next(kBatchLines)) {
      std::erase_if(lines, [&](const auto& line) { return line.number <= manifest_.line || is_blank(line.text); });
      add(lines, path);
      manifest_.line = std::max(manifest_.line, records->number());
      if (static_cast<std::int64_t>(tokens_.size()) >= config_.shard_tokens) write_shard();
      progress_.update(bytes_before_ + records->position(), concat(manifest_.result.samples, " samples"));
      throw_if_interrupted();
    }
  }

  void add(const std::vector<Records::Record>& lines, const fs::path& file) {
    std::vector<Tokenized> done(lines.size());
    at::parallel_for(0, static_cast<std::int64_t>(lines.size()), 16, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) done[i] = tokenize(lines[i], file, sampler_);
    });
    for (const Tokenized& item : done) add(item);
  }

  void add(const Tokenized& item) {
    auto& result = manifest_.result;
    if (!item.error.empty()) {
      require(result.malformed < config_.max_malformed, item.error);
      ++result.malformed;
      log_warning(concat("skipped: ", item.error));
      return;
    }
    const std::size_t length = item.sample.tokens.size();
    const std::size_t most = config_.max_length > 0 ? static_cast<std::size_t>(config_.max_length) : length;
    if (length < 2 || (length > most && config_.long_samples == "drop")) {
      ++result.dropped;
      return;
    }
    result.shortened += length > most;
    for (std::size_t begin = 0; begin + 2 <= length; begin += most) {
      add(item.sample, begin, std::min(begin + most, length));
      if (config_.long_samples == "cut") break;
    }
  }

  // Tokens [begin, end) of a sample as a sample.
  void add(const PackedBatch::Sample& sample, std::size_t begin, std::size_t end) {
    const auto at = [](auto& values, std::size_t i) { return values.begin() + static_cast<std::ptrdiff_t>(i); };
    tokens_.insert(tokens_.end(), at(sample.tokens, begin), at(sample.tokens, end));
    for (std::size_t i = begin; i < end; ++i) {
      const bool learn = i > begin && (sample.weights.empty() || sample.weights[i] > 0);
      learn_.push_back(learn);
      manifest_.result.loss_tokens += learn;
    }
    offsets_.push_back(static_cast<std::int64_t>(tokens_.size()));
    ++manifest_.result.samples;
    manifest_.result.tokens += static_cast<std::int64_t>(end - begin);
  }

  // What was gathered as the next shard (none when it is empty), then the manifest that counts it.
  void write_shard() {
    if (offsets_.size() > 1) {
      const auto column = [](auto& values, at::ScalarType dtype) {
        return at::from_blob(values.data(), {static_cast<std::int64_t>(values.size())}, at::TensorOptions().dtype(dtype));
      };
      const fs::path path = shard_path(folder_, std::ssize(manifest_.checksums));
      write_safetensors(path, {{"tokens", column(tokens_, at::kInt)},
                               {"learn", column(learn_, at::kByte)},
                               {"offsets", column(offsets_, at::kLong)}});
      manifest_.checksums.push_back(crc32c_text(file_crc32c(path)));
      tokens_.clear();
      learn_.clear();
      offsets_.assign(1, 0);
    }
    write_json(folder_ / "manifest.json", manifest_.to_json(described_, sampler_.tokenizer().vocabulary()));
  }

  const PrepareConfig config_;
  const fs::path folder_;
  const std::string described_;
  LineSampler sampler_;
  Progress progress_;
  Manifest manifest_;
  bool is_new_ = false;  // the folder
  std::vector<std::int32_t> tokens_;
  std::vector<std::uint8_t> learn_;
  std::vector<std::int64_t> offsets_ = {0};
  std::int64_t bytes_before_ = 0;  // of the input files that are done
};

}  // namespace preparing

PrepareResult prepare(const PrepareConfig& config) {
  require(!config.input.empty(), "input: found no files, expected at least one");
  require(!config.tokenizer.empty(), "tokenizer: expected a folder with tokenizer.json");
  require(!config.output.empty(), "output: expected a folder");
  return preparing::Preparation(config).run();
}

}  // namespace molt
