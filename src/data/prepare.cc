#include "data/prepare.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/checksum.h"
#include "base/counted.h"
#include "base/error.h"
#include "base/folder_lock.h"
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

// CRC-32C of what was read so far, with this line behind it.
std::uint32_t with_line(std::uint32_t sum, const Records::Record& line) {
  return crc32c("\n", crc32c(line.text, sum));
}

// Of the files in a tokenizer's folder that decide how a line becomes tokens.
std::string tokenizer_checksum(const fs::path& tokenizer) {
  if (!fs::is_directory(tokenizer)) return crc32c_text(file_crc32c(tokenizer));
  std::uint32_t sum = 0;
  for (const char* name :
       {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json", "config.json"}) {
    if (fs::exists(tokenizer / name)) sum = crc32c(concat(name, file_crc32c(tokenizer / name)), sum);
  }
  return crc32c_text(sum);
}

// What is known of a folder so far; written after each shard, so that a killed run goes on behind the last whole one.
struct Manifest {
  PrepareResult result;
  std::vector<std::string> checksums;  // CRC-32C, one a shard
  std::size_t file = 0;                // of config.input
  std::int64_t line = 0;               // lines of that file that are done
  std::uint32_t input_sum = 0;         // CRC-32C of all lines that are done
  bool complete = false;

  Json to_json(const std::string& config, const std::string& tokenizer, std::int64_t vocabulary) const {
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
            {"input_checksum", crc32c_text(input_sum)},
            {"tokenizer_checksum", tokenizer},
            {"complete", complete}};
  }

  // All but input_sum.
  static Manifest of_json(const Json& json, const std::string& place) {
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
        tokenizer_checksum_(tokenizer_checksum(config.tokenizer)),
        progress_("prepare", total_bytes(config), "B"),
        is_new_(!fs::exists(folder_)),
        lock_(folder_) {
    go_on();
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

  // Behind what lies in the folder, where that is the beginning of the same work.
  void go_on() {
    const fs::path path = folder_ / "manifest.json";
    if (!fs::exists(path)) return;
    const Json json = read_json(path);
    const std::string place = path.string();
    if (get_or<bool>(json, "complete", true, place)) return;
    const auto is = [&](const char* key, const std::string& now) { return get_or<std::string>(json, key, "", place) == now; };
    Manifest found = Manifest::of_json(json, place);
    if (!is("config", described_)) return say_anew("another configuration");
    if (!is("tokenizer_checksum", tokenizer_checksum_)) return say_anew("another tokenizer");
    found.input_sum = sum_of_done(found);
    if (!is("input_checksum", crc32c_text(found.input_sum))) return say_anew("other input");
    manifest_ = std::move(found);
    log_info(concat(folder_.string(), ": continuing after ", counted(manifest_.result.samples, "sample")));
    for (std::size_t i = 0; i < manifest_.file; ++i) bytes_before_ += static_cast<std::int64_t>(fs::file_size(config_.input[i]));
  }

  void say_anew(const char* before) const {
    log_warning(concat(folder_.string(), ": was begun with ", before, ": starting anew"));
  }

  // Of the lines that a manifest counts, as the input holds them now. Reading them takes a small part of the time that tokenizing
  // them took.
  std::uint32_t sum_of_done(const Manifest& manifest) const {
    std::uint32_t sum = 0;
    for (std::size_t i = 0; i <= manifest.file && i < config_.input.size(); ++i) {
      const bool whole = i < manifest.file;
      const std::unique_ptr<Records> records = open_records(config_.input[i], keys());
      while (whole || records->number() < manifest.line) {
        const auto lines = records->next(kBatchLines);
        if (lines.empty()) break;
        for (const auto& line : lines) {
          if (whole || line.number <= manifest.line) sum = with_line(sum, line);
        }
        throw_if_interrupted();
      }
    }
    return sum;
  }

  // Of what a record may hold.
  std::vector<std::string> keys() const {
    return {config_.text, config_.prompt, config_.completion, config_.messages, "tools", config_.tokens, config_.learn};
  }

  void read_one(const fs::path& path) {
    const std::unique_ptr<Records> records = open_records(path, keys());
    for (auto lines = records->next(kBatchLines); !lines.empty(); lines = records->next(kBatchLines)) {
      std::erase_if(lines, [&](const auto& line) { return line.number <= manifest_.line; });
      for (const auto& line : lines) manifest_.input_sum = with_line(manifest_.input_sum, line);
      std::erase_if(lines, [](const auto& line) { return is_blank(line.text); });
      add(lines, path);
      manifest_.line = std::max(manifest_.line, records->number());
      if (static_cast<std::int64_t>(tokens_.size()) >= config_.shard_tokens) write_shard();
      progress_.update(bytes_before_ + records->position(), counted(manifest_.result.samples, "sample"));
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
      require(result.malformed < config_.max_malformed, item.error, " (max_malformed allows ", config_.max_malformed,
              " malformed lines)");
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
    if (manifest_.checksums.empty()) remove_older();
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
    write_json(folder_ / "manifest.json", manifest_.to_json(described_, tokenizer_checksum_, sampler_.tokenizer().vocabulary()));
  }

  // What another call left in the folder; the manifest first, so that at no time it speaks of shards that are others'.
  void remove_older() const {
    std::error_code error;
    fs::remove(folder_ / "manifest.json", error);
    for (fs::directory_iterator entry(folder_, error), end; !error && entry != end; entry.increment(error)) {
      const std::string name = entry->path().filename().string();
      if (name.starts_with("shard-") && name.ends_with(".safetensors")) fs::remove(entry->path(), error);
    }
    require(!error, folder_.string(), ": cannot remove the shards of an earlier call: ", error.message());
  }

  const PrepareConfig config_;
  const fs::path folder_;
  const std::string described_;
  LineSampler sampler_;
  const std::string tokenizer_checksum_;
  Progress progress_;
  const bool is_new_;  // the folder
  const FolderLock lock_;
  Manifest manifest_;
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
