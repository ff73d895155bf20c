#include "data/packed_source.h"

#include <future>
#include <nlohmann/json.hpp>
#include <numeric>

#include "base/error.h"
#include "base/json.h"
#include "base/random.h"

namespace molt {

void DataConfig::visit(ConfigVisitor& v) {
  v.field("path", path, "Folder written by molt prepare");
  v.field("synthetic", synthetic, "Fresh reasoning problems instead of prepared data");
  v.field("shuffle", shuffle, "Order prepared samples by the seed, anew each epoch; false: as they lie");
  v.field("max_length", max_length, "Cut samples to this many tokens; 0: only what does not fit a micro-batch is cut");
}

std::shared_ptr<const SampleStream> open_data(const DataConfig& config, std::shared_ptr<const Tokenizer> tokenizer,
                                              const std::string& place) {
  require(config.path.empty() != !config.synthetic.has_value(), place, ": expected exactly one of path and synthetic");
  if (!config.path.empty()) return open_shards(config.path);
  MOLT_CHECK(tokenizer, "synthetic data needs a tokenizer");
  return synthetic_stream(*config.synthetic, std::move(tokenizer));
}

namespace packing {

class PackedSource : public BatchSource {
 public:
  PackedSource(std::shared_ptr<const SampleStream> stream, std::uint64_t seed, const DataConfig& config)
      : stream_(std::move(stream)), seed_(seed), shuffle_(config.shuffle), max_length_(config.max_length) {
    require(max_length_ >= 0, "data.max_length: found ", max_length_, ", expected 0 or more");
  }
  ~PackedSource() override { drop_prepared(); }

  PackedBatch next(std::int64_t max_tokens) override {
    MOLT_CHECK(max_tokens > 1, "a batch of ", max_tokens, " tokens predicts nothing");
    Made made = prepared_.valid() && prepared_for_ == max_tokens ? prepared_.get() : (drop_prepared(), make(taken_, max_tokens));
    taken_ = made.taken;
    prepared_for_ = max_tokens;
    prepared_ = std::async(std::launch::async, [this, from = taken_, max_tokens] { return make(from, max_tokens); });
    return std::move(made.batch);
  }

  Json position() const override { return {{"sample", taken_}}; }

  void restore(const Json& position) override {
    drop_prepared();
    taken_ = get<std::int64_t>(position, "sample", "data position");
    require(taken_ >= 0, "data position: sample: found ", taken_, ", expected 0 or more");
  }

 private:
  struct Made {
    PackedBatch batch;
    std::int64_t taken;
  };

  Made make(std::int64_t taken, std::int64_t max_tokens) {
    std::vector<PackedBatch::Sample> samples;
    for (std::int64_t room = max_tokens; room > 0; ++taken) {
      PackedBatch::Sample sample = stream_->at(index(taken));
      const std::int64_t limit = max_length_ > 0 ? std::min(max_length_, max_tokens) : max_tokens;
      if (static_cast<std::int64_t>(sample.tokens.size()) > limit) {
        sample.tokens.resize(limit);
        if (!sample.weights.empty()) sample.weights.resize(limit);
      }
      const auto length = static_cast<std::int64_t>(sample.tokens.size());
      if (length > room && !samples.empty()) break;
      room -= length;
      samples.push_back(std::move(sample));
    }
    return {PackedBatch::of(samples), taken};
  }

  // The sample at a place of the endless sequence of epochs.
  std::int64_t index(std::int64_t place) {
    const std::int64_t size = stream_->size();
    if (size == 0) return place;
    const std::int64_t epoch = place / size;
    if (!shuffle_) return place % size;
    if (epoch != epoch_) {
      order_.resize(static_cast<std::size_t>(size));
      std::iota(order_.begin(), order_.end(), 0);
      Random(derive_seed(seed_, "epoch", static_cast<std::uint64_t>(epoch))).shuffle(order_);
      epoch_ = epoch;
    }
    return order_[static_cast<std::size_t>(place % size)];
  }

  void drop_prepared() {
    if (prepared_.valid()) prepared_.wait();
    prepared_ = {};
  }

  std::shared_ptr<const SampleStream> stream_;
  std::uint64_t seed_;
  bool shuffle_;
  std::int64_t max_length_;
  std::int64_t taken_ = 0;
  std::int64_t epoch_ = -1;  // of order_
  std::vector<std::int64_t> order_;
  std::future<Made> prepared_;  // only one maker runs at a time: order_ needs no lock
  std::int64_t prepared_for_ = 0;
};

}  // namespace packing

std::unique_ptr<BatchSource> packed_source(std::shared_ptr<const SampleStream> stream, std::uint64_t seed,
                                           const DataConfig& config) {
  return std::make_unique<packing::PackedSource>(std::move(stream), seed, config);
}

}  // namespace molt
