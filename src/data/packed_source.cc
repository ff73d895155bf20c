#include "data/packed_source.h"

#include <future>
#include <nlohmann/json.hpp>

#include "base/checksum.h"
#include "base/error.h"
#include "base/json.h"
#include "base/random.h"
#include "data/learned_part.h"
#include "data/sample_order.h"

namespace molt {

void BlendPartConfig::visit(ConfigVisitor& v) {
  v.field("path", path, "Folder written by molt prepare");
  v.field("synthetic", synthetic, "Fresh reasoning problems instead of prepared data");
  v.field("weight", weight, "Share of the tokens that come from here, relative to the other weights");
  if (v.reading()) require(weight > 0, v.place(), ": weight: found ", weight, ", expected a positive number");
}

void OnPolicyConfig::visit(ConfigVisitor& v) {
  v.field("fraction", fraction, "Share of the micro-batches that the student writes; the others are the data as it is");
  v.field("max_tokens", max_tokens, "New tokens of a sample at most");
  v.field("temperature", temperature, "Of the sampling; 0: greedy");
  v.field("top_k", top_k, "Sample among the k most probable tokens; 0: among all");
  v.field("top_p", top_p, "Sample among the fewest tokens whose probabilities sum to this; 1: among all");
  v.field("max_sequences", max_sequences, "Samples written at the same time");
  if (!v.reading()) return;
  const auto check = [&](bool right, const char* key, double found, const char* expected) {
    require(right, v.place(), ": ", key, ": found ", found, ", expected ", expected);
  };
  check(fraction > 0 && fraction <= 1, "fraction", fraction, "a number above 0, up to 1");
  check(max_tokens >= 1, "max_tokens", static_cast<double>(max_tokens), "a number from 1 up");
  check(temperature >= 0, "temperature", temperature, "a number from 0 up");
  check(top_k >= 0, "top_k", static_cast<double>(top_k), "a number from 0 up");
  check(top_p > 0 && top_p <= 1, "top_p", top_p, "a number above 0, up to 1");
  check(max_sequences >= 1, "max_sequences", static_cast<double>(max_sequences), "a number from 1 up");
}

void DataConfig::visit(ConfigVisitor& v) {
  v.field("path", path, "Folder written by molt prepare");
  v.field("synthetic", synthetic, "Fresh reasoning problems instead of prepared data");
  v.field("blend", blend, "Several data sets by name instead of one");
  v.field("shuffle", shuffle, "Order prepared samples by the seed, anew each epoch; false: as they lie");
  v.field("max_length", max_length, "Cut samples to this many tokens; 0: only what does not fit a micro-batch is cut");
  v.choice("packing", packing, {"in_order", "best_fit"},
           "in_order: a micro-batch ends before the first sample that does not fit; best_fit: it is filled with those that do");
  v.choice("learn", learn, {"all", "reasoning", "answer"},
           "Which part of what a sample teaches is learned: all of it, up to the end of the reasoning, or what follows");
  v.field("reasoning_end", reasoning_end,
          "Text that ends the reasoning and belongs to it; empty: \"answer :\" of synthetic problems, \"</think>\" otherwise");
  v.field("on_policy", on_policy, "In a distillation: the student writes the samples itself, from their prompts");
  if (!v.reading() || !on_policy) return;
  require(learn == "all", v.place(), ": learn: found ", learn, " beside on_policy, expected all: the student writes on from the ",
          "first token that is learned");
}

namespace packing {

std::shared_ptr<const SampleStream> open_one(const std::string& path, const std::optional<SyntheticConfig>& synthetic,
                                             const std::shared_ptr<const Tokenizer>& tokenizer, const std::string& place) {
  require(!path.empty() || synthetic.has_value(), place, ": found neither path nor synthetic, expected one of them, or a blend");
  require(path.empty() || !synthetic.has_value(), place, ": found path and synthetic, expected one of them, or a blend of both");
  if (!path.empty()) return open_shards(path);
  require(tokenizer != nullptr, place,
          ".synthetic: found no tokenizer.json, expected one in the model's folder or in the folder that `tokenizer` names");
  return synthetic_stream(*synthetic, tokenizer);
}

// Tokens of a sample on average; of an endless stream, over its first samples.
double mean_length(const SampleStream& stream) {
  constexpr std::int64_t looked_at = 64;
  if (stream.size() > 0 && stream.tokens() > 0) return static_cast<double>(stream.tokens()) / static_cast<double>(stream.size());
  double total = 0;
  for (std::int64_t i = 0; i < looked_at; ++i) total += static_cast<double>(stream.at(i).tokens.size());
  return total / looked_at;
}

std::shared_ptr<const SampleStream> endless(std::vector<DataPart> parts, std::uint64_t seed, bool shuffle) {
  if (parts.size() == 1) return ordered_stream(std::move(parts[0].stream), seed, shuffle);
  std::vector<WeightedStream> streams;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const double samples = parts[i].weight / mean_length(*parts[i].stream);
    streams.push_back({ordered_stream(parts[i].stream, derive_seed(seed, "part", i), shuffle), samples});
  }
  return blended_stream(std::move(streams), seed);
}

class PackedSource : public BatchSource {
 public:
  PackedSource(std::shared_ptr<const SampleStream> stream, const DataConfig& config)
      : stream_(std::move(stream)), max_length_(config.max_length), window_(config.packing == "best_fit" ? 512 : 1) {
    require(max_length_ >= 0, "data.max_length: found ", max_length_, ", expected 0 or more");
  }
  ~PackedSource() override { drop_prepared(); }

  PackedBatch next(std::int64_t max_tokens) override {
    MOLT_CHECK(max_tokens > 1, "a batch of ", max_tokens, " tokens predicts nothing");
    Made made = prepared_.valid() && prepared_for_ == max_tokens ? prepared_.get() : (drop_prepared(), make(state_, max_tokens));
    state_ = made.state;
    prepared_for_ = max_tokens;
    prepared_ = std::async(std::launch::async, [this, from = state_, max_tokens] { return make(from, max_tokens); });
    return std::move(made.batch);
  }

  Json position() const override {
    std::int64_t drawn = state_.drawn;
    std::vector<std::int64_t> waiting;
    for (const Waiting& each : state_.waiting) waiting.push_back(each.place);
    for (; !waiting.empty() && waiting.back() == drawn - 1; --drawn) waiting.pop_back();
    Json position = {{"sample", drawn}};
    if (!waiting.empty()) position["waiting"] = waiting;
    return position;
  }

  void restore(const Json& position) override {
    drop_prepared();
    const std::string place = "data position";
    State state;
    state.drawn = get<std::int64_t>(position, "sample", place);
    require(state.drawn >= 0, place, ": sample: found ", state.drawn, ", expected 0 or more");
    for (const std::int64_t each : get_or<std::vector<std::int64_t>>(position, "waiting", {}, place)) {
      require(each >= 0 && each < state.drawn, place, ": waiting: found ", each, ", expected numbers below ", state.drawn);
      state.waiting.push_back(wait_for(each));
    }
    state_ = std::move(state);
  }

 private:
  // A sample that was drawn and is in no batch yet.
  struct Waiting {
    std::int64_t place;  // in the stream
    std::shared_ptr<const PackedBatch::Sample> sample;
  };
  struct State {
    std::int64_t drawn = 0;
    std::vector<Waiting> waiting;  // in the order of their places
  };
  struct Made {
    PackedBatch batch;
    State state;
  };

  Waiting wait_for(std::int64_t place) const { return {place, std::make_shared<const PackedBatch::Sample>(stream_->at(place))}; }

  std::int64_t length(const Waiting& waiting, std::int64_t max_tokens) const {
    const std::int64_t limit = max_length_ > 0 ? std::min(max_length_, max_tokens) : max_tokens;
    return std::min(static_cast<std::int64_t>(waiting.sample->tokens.size()), limit);
  }

  Made make(State state, std::int64_t max_tokens) const {
    std::vector<PackedBatch::Sample> samples;
    for (std::int64_t room = max_tokens; room > 0;) {
      while (std::ssize(state.waiting) < window_) state.waiting.push_back(wait_for(state.drawn++));
      // The first one begins every batch, so that none waits for ever.
      std::size_t best = state.waiting.size();
      std::int64_t most = 0;
      for (std::size_t i = 0; i < state.waiting.size() && !(samples.empty() && i > 0); ++i) {
        const std::int64_t tokens = length(state.waiting[i], max_tokens);
        if (tokens <= room && tokens > most) best = i, most = tokens;
      }
      if (best == state.waiting.size()) break;
      samples.push_back(*state.waiting[best].sample);
      samples.back().tokens.resize(static_cast<std::size_t>(most));
      if (!samples.back().weights.empty()) samples.back().weights.resize(static_cast<std::size_t>(most));
      room -= most;
      state.waiting.erase(state.waiting.begin() + static_cast<std::ptrdiff_t>(best));
    }
    return {PackedBatch::of(samples), std::move(state)};
  }

  void drop_prepared() {
    if (prepared_.valid()) prepared_.wait();
    prepared_ = {};
  }

  std::shared_ptr<const SampleStream> stream_;  // endless
  std::int64_t max_length_, window_;
  State state_;
  std::future<Made> prepared_;
  std::int64_t prepared_for_ = 0;
};

}  // namespace packing

std::vector<DataPart> open_data(const DataConfig& config, std::shared_ptr<const Tokenizer> tokenizer, const std::string& place) {
  const auto open = [&](const std::string& path, const std::optional<SyntheticConfig>& synthetic, const std::string& at) {
    const std::shared_ptr<const SampleStream> stream = packing::open_one(path, synthetic, tokenizer, at);
    if (config.learn == "all") return stream;
    require(!synthetic || synthetic->questions == 1, at, ": learn: found ", config.learn, " beside ",
            synthetic ? synthetic->questions : 0, " questions of a text, expected all");
    require(tokenizer != nullptr, at, ": learn: ", config.learn, ": found no tokenizer.json, expected one that knows the text ",
            "which ends the reasoning");
    const std::string end = config.reasoning_end.empty() ? (synthetic ? "answer :" : "</think>") : config.reasoning_end;
    return learned_part(stream, config.learn, tokenizer->encode(end, /*add_special_tokens=*/false));
  };
  if (config.blend.empty()) return {{open(config.path, config.synthetic, place), 1.0}};
  require(config.path.empty() && !config.synthetic, place, ": found blend beside path or synthetic, expected one of the three");
  std::vector<DataPart> parts;
  for (const auto& [name, part] : config.blend) {
    parts.push_back({open(part.path, part.synthetic, concat(place, ".blend.", name)), part.weight});
  }
  return parts;
}

std::string data_fingerprint(const DataConfig& config) {
  std::vector<std::string> folders = {config.path};
  for (const auto& [name, part] : config.blend) folders.push_back(part.path);
  std::erase(folders, "");
  if (folders.empty()) return "";
  std::uint64_t whole = 0;
  for (const std::string& folder : folders) whole = derive_seed(whole, "folder", data_fingerprint(fs::path(folder)));
  return fingerprint_text(whole);
}

std::unique_ptr<BatchSource> packed_source(std::vector<DataPart> parts, std::uint64_t seed, const DataConfig& config) {
  return std::make_unique<packing::PackedSource>(packing::endless(std::move(parts), seed, config.shuffle), config);
}

std::unique_ptr<BatchSource> packed_source(std::shared_ptr<const SampleStream> stream, std::uint64_t seed,
                                           const DataConfig& config) {
  return packed_source(std::vector<DataPart>{{std::move(stream), 1.0}}, seed, config);
}

}  // namespace molt
