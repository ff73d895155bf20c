#include "data/sample_order.h"

#include <algorithm>
#include <cmath>
#include <mutex>
#include <numeric>

#include "base/error.h"
#include "base/random.h"

namespace molt {

namespace sample_order {

class Ordered : public SampleStream {
 public:
  Ordered(std::shared_ptr<const SampleStream> stream, std::uint64_t seed, bool shuffle)
      : stream_(std::move(stream)), seed_(seed), shuffle_(shuffle) {}
  std::int64_t size() const override { return 0; }
  std::int64_t tokens() const override { return 0; }
  PackedBatch::Sample at(std::int64_t place) const override { return stream_->at(index(place)); }

 private:
  std::int64_t index(std::int64_t place) const {
    const std::int64_t size = stream_->size();
    if (size == 0) return place;
    if (!shuffle_) return place % size;
    const std::int64_t epoch = place / size;
    const std::lock_guard<std::mutex> lock(mutex_);
    if (epoch != epoch_) {
      order_.resize(static_cast<std::size_t>(size));
      std::iota(order_.begin(), order_.end(), 0);
      Random(derive_seed(seed_, "epoch", static_cast<std::uint64_t>(epoch))).shuffle(order_);
      epoch_ = epoch;
    }
    return order_[static_cast<std::size_t>(place % size)];
  }

  std::shared_ptr<const SampleStream> stream_;
  std::uint64_t seed_;
  bool shuffle_;
  mutable std::mutex mutex_;
  mutable std::int64_t epoch_ = -1;  // of order_
  mutable std::vector<std::int64_t> order_;
};

class Blended : public SampleStream {
 public:
  Blended(std::vector<WeightedStream> streams, std::uint64_t seed) : streams_(std::move(streams)), seed_(seed) {
    double total = 0;
    for (const WeightedStream& each : streams_) total += each.weight;
    for (WeightedStream& each : streams_) each.weight /= total;
    const auto lighter = [](const WeightedStream& a, const WeightedStream& b) { return a.weight < b.weight; };
    heaviest_ = static_cast<std::size_t>(std::max_element(streams_.begin(), streams_.end(), lighter) - streams_.begin());
  }
  std::int64_t size() const override { return 0; }
  std::int64_t tokens() const override { return 0; }

  PackedBatch::Sample at(std::int64_t place) const override {
    std::size_t stream;
    std::int64_t own_place;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (place / kRun != run_) lay_out(place / kRun);
      stream = stream_[static_cast<std::size_t>(place % kRun)];
      own_place = place_[static_cast<std::size_t>(place % kRun)];
    }
    return streams_[stream].stream->at(own_place);
  }

 private:
  static constexpr std::int64_t kRun = 1024;

  // Samples of each stream in the first `runs` runs. What rounding down leaves goes to the heaviest, so no count ever falls.
  std::vector<std::int64_t> taken(std::int64_t runs) const {
    std::vector<std::int64_t> counts(streams_.size());
    std::int64_t others = 0;
    for (std::size_t i = 0; i < streams_.size(); ++i) {
      if (i == heaviest_) continue;
      counts[i] = static_cast<std::int64_t>(std::floor(static_cast<double>(runs * kRun) * streams_[i].weight));
      others += counts[i];
    }
    counts[heaviest_] = runs * kRun - others;
    return counts;
  }

  void lay_out(std::int64_t run) const {
    const std::vector<std::int64_t> before = taken(run), after = taken(run + 1);
    stream_.clear();
    for (std::size_t i = 0; i < streams_.size(); ++i) {
      stream_.insert(stream_.end(), static_cast<std::size_t>(after[i] - before[i]), i);
    }
    Random(derive_seed(seed_, "blend", static_cast<std::uint64_t>(run))).shuffle(stream_);
    std::vector<std::int64_t> next = before;
    place_.clear();
    for (const std::size_t stream : stream_) place_.push_back(next[stream]++);
    run_ = run;
  }

  std::vector<WeightedStream> streams_;
  std::uint64_t seed_;
  std::size_t heaviest_ = 0;
  mutable std::mutex mutex_;
  mutable std::int64_t run_ = -1;  // laid out in the two lists below
  mutable std::vector<std::size_t> stream_;
  mutable std::vector<std::int64_t> place_;  // in that stream
};

}  // namespace sample_order

std::shared_ptr<const SampleStream> ordered_stream(std::shared_ptr<const SampleStream> stream, std::uint64_t seed, bool shuffle) {
  return std::make_shared<sample_order::Ordered>(std::move(stream), seed, shuffle);
}

std::shared_ptr<const SampleStream> blended_stream(std::vector<WeightedStream> streams, std::uint64_t seed) {
  MOLT_CHECK(!streams.empty() && static_cast<std::int64_t>(streams.size()) <= 1024, "a blend of ", streams.size(), " streams");
  return std::make_shared<sample_order::Blended>(std::move(streams), seed);
}

}  // namespace molt
