#include "data/prepare.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>

#include <atomic>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "base/log.h"
#include "base/progress.h"
#include "data/sample_stream.h"
#include "formats/safetensors.h"

namespace molt {

void PrepareConfig::visit(ConfigVisitor& v) {
  v.field("input", input, "JSONL files, one object a line");
  v.field("tokenizer", tokenizer, "Folder with tokenizer.json (a model), or the file itself");
  v.field("output", output, "Folder to write");
  v.field("text", text, "Key of plain text: the loss is on all of it");
  v.field("prompt", prompt, "Key of a prompt: no loss on it");
  v.field("completion", completion, "Key of the prompt's completion: the loss is on it");
  v.field("max_length", max_length, "Drop samples with more tokens than this; 0: keep all");
  v.field("max_malformed", max_malformed, "Malformed lines to report and skip before the run fails");
  v.field("shard_tokens", shard_tokens, "Tokens of one shard, about");
}

namespace preparing {

constexpr std::size_t kBatchLines = 2048;  // tokenized together on every core

struct Line {
  std::string place;
  std::string_view text;
};

struct Tokenized {
  PackedBatch::Sample sample;
  std::string error;  // the line is malformed
};

Tokenized tokenize(const Line& line, const PrepareConfig& config, const Tokenizer& tokenizer) {
  try {
    const Json object = parse_json(line.text, line.place);
    require(object.is_object(), line.place, ": found no object, expected {\"", config.text, "\": …} or {\"", config.prompt,
            "\": …, \"", config.completion, "\": …}");
    if (object.contains(config.text)) return {text_sample(tokenizer, get<std::string>(object, config.text, line.place)), ""};
    require(object.contains(config.prompt), line.place, ": found neither \"", config.text, "\" nor \"", config.prompt, "\"");
    return {completion_sample(tokenizer, get<std::string>(object, config.prompt, line.place),
                              get<std::string>(object, config.completion, line.place)),
            ""};
  } catch (const UserError& error) {
    return {{}, error.what()};
  }
}

// What is known of a folder so far; written after each shard, so that a killed run goes on behind the last whole one.
struct Manifest {
  PrepareResult result;
  std::int64_t shards = 0;
  std::size_t file = 0;   // of config.input
  std::int64_t line = 0;  // lines of that file that are done
  bool complete = false;

  Json to_json(const std::string& config, std::int64_t vocabulary) const {
    return {{"config", config},
            {"vocabulary", vocabulary},
            {"samples", result.samples},
            {"tokens", result.tokens},
            {"loss_tokens", result.loss_tokens},
            {"dropped", result.dropped},
            {"malformed", result.malformed},
            {"shards", shards},
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
    manifest.result = {get<std::int64_t>(json, "samples", place), get<std::int64_t>(json, "tokens", place),
                       get<std::int64_t>(json, "loss_tokens", place), get<std::int64_t>(json, "dropped", place),
                       get<std::int64_t>(json, "malformed", place)};
    manifest.shards = get<std::int64_t>(json, "shards", place);
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
        tokenizer_(Tokenizer::load(config.tokenizer)),
        progress_("prepare", total_bytes(config), "B") {
    std::error_code error;
    fs::create_directories(folder_, error);
    require(!error, folder_.string(), ": cannot create the folder: ", error.message());
    if (auto found = Manifest::read(folder_ / "manifest.json", described_)) {
      manifest_ = *found;
      log_info(concat(folder_.string(), ": continuing after ", manifest_.result.samples, " samples"));
      for (std::size_t i = 0; i < manifest_.file; ++i) bytes_before_ += static_cast<std::int64_t>(fs::file_size(config.input[i]));
    }
  }

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

  void read_one(const fs::path& path) {
    LineReader reader(path);
    std::string_view text;
    std::vector<Line> lines;
    bool more = true;
    while (more) {
      lines.clear();
      while (lines.size() < kBatchLines && (more = reader.next(text))) {
        if (reader.number() <= manifest_.line || text.find_first_not_of(" \t\r") == std::string_view::npos) continue;
        lines.push_back({reader.place(), text});
      }
      add(lines);
      manifest_.line = reader.number();
      if (static_cast<std::int64_t>(tokens_.size()) >= config_.shard_tokens) write_shard();
      progress_.update(bytes_before_ + reader.position(), concat(manifest_.result.samples, " samples"));
      throw_if_interrupted();
    }
  }

  void add(const std::vector<Line>& lines) {
    std::vector<Tokenized> done(lines.size());
    at::parallel_for(0, static_cast<std::int64_t>(lines.size()), 16, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) done[i] = tokenize(lines[i], config_, *tokenizer_);
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
    const auto& sample = item.sample;
    const auto length = static_cast<std::int64_t>(sample.tokens.size());
    if (length < 2 || (config_.max_length > 0 && length > config_.max_length)) {
      ++result.dropped;
      return;
    }
    tokens_.insert(tokens_.end(), sample.tokens.begin(), sample.tokens.end());
    for (std::int64_t i = 0; i < length; ++i) {
      const bool learn = i > 0 && (sample.weights.empty() || sample.weights[i] > 0);
      learn_.push_back(learn);
      result.loss_tokens += learn;
    }
    offsets_.push_back(static_cast<std::int64_t>(tokens_.size()));
    ++result.samples;
    result.tokens += length;
  }

  // What was gathered as the next shard (none when it is empty), then the manifest that counts it.
  void write_shard() {
    if (offsets_.size() > 1) {
      const auto column = [](auto& values, at::ScalarType dtype) {
        return at::from_blob(values.data(), {static_cast<std::int64_t>(values.size())}, at::TensorOptions().dtype(dtype));
      };
      write_safetensors(shard_path(folder_, manifest_.shards), {{"tokens", column(tokens_, at::kInt)},
                                                                {"learn", column(learn_, at::kByte)},
                                                                {"offsets", column(offsets_, at::kLong)}});
      ++manifest_.shards;
      tokens_.clear();
      learn_.clear();
      offsets_.assign(1, 0);
    }
    write_json(folder_ / "manifest.json", manifest_.to_json(described_, tokenizer_->vocabulary()));
  }

  const PrepareConfig config_;
  const fs::path folder_;
  const std::string described_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  Progress progress_;
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
