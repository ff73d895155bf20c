#include "data/learned_part.h"

#include <algorithm>

#include "base/error.h"

namespace molt {

namespace learned_parts {

class Part : public SampleStream {
 public:
  Part(std::shared_ptr<const SampleStream> stream, bool reasoning, std::vector<std::int32_t> reasoning_end)
      : stream_(std::move(stream)), reasoning_(reasoning), end_(std::move(reasoning_end)) {}
  std::int64_t size() const override { return stream_->size(); }
  std::int64_t tokens() const override { return stream_->tokens(); }
  PackedBatch::Sample at(std::int64_t index) const override {
    PackedBatch::Sample sample = stream_->at(index);
    if (sample.weights.empty()) sample.weights.assign(sample.tokens.size(), 1.0f);
    const auto learned = std::find_if(sample.weights.begin(), sample.weights.end(), [](float weight) { return weight != 0; });
    const auto from = sample.tokens.begin() + (learned - sample.weights.begin());
    const auto found = std::search(from, sample.tokens.end(), end_.begin(), end_.end());
    const auto answer = found == sample.tokens.end() ? found : found + std::ssize(end_);
    const auto split = sample.weights.begin() + (answer - sample.tokens.begin());
    reasoning_ ? std::fill(split, sample.weights.end(), 0.0f) : std::fill(sample.weights.begin(), split, 0.0f);
    return sample;
  }

 private:
  std::shared_ptr<const SampleStream> stream_;
  bool reasoning_;
  std::vector<std::int32_t> end_;
};

}  // namespace learned_parts

std::shared_ptr<const SampleStream> learned_part(std::shared_ptr<const SampleStream> stream, const std::string& part,
                                                 std::vector<std::int32_t> reasoning_end) {
  MOLT_CHECK(part == "all" || part == "reasoning" || part == "answer", "no part of a sample is called ", part);
  if (part == "all") return stream;
  MOLT_CHECK(!reasoning_end.empty(), "a part of a sample needs tokens that end the reasoning");
  return std::make_shared<learned_parts::Part>(std::move(stream), part == "reasoning", std::move(reasoning_end));
}

}  // namespace molt
