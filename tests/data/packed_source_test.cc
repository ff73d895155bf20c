#include "data/packed_source.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "base/json.h"

namespace molt {
namespace {

// Sample i is i + 2 tokens long and holds nothing but the number i.
class Counted : public SampleStream {
 public:
  explicit Counted(std::int64_t size) : size_(size) {}
  std::int64_t size() const override { return size_; }
  std::int64_t tokens() const override { return 0; }
  PackedBatch::Sample at(std::int64_t index) const override {
    const auto length = static_cast<std::size_t>(index % 7 + 2);
    return {std::vector<std::int32_t>(length, static_cast<std::int32_t>(index)), {}};
  }

 private:
  std::int64_t size_;
};

// The samples of a batch by the number they hold, in order.
std::vector<std::int64_t> numbers(const PackedBatch& batch) {
  std::vector<std::int64_t> found;
  for (std::int64_t i = 0; i < batch.sequences.count(); ++i)
    found.push_back(batch.tokens[batch.sequences.offsets[static_cast<std::size_t>(i)]].item<std::int64_t>());
  return found;
}

std::vector<std::int64_t> take(BatchSource& source, std::int64_t samples, std::int64_t max_tokens) {
  std::vector<std::int64_t> found;
  while (static_cast<std::int64_t>(found.size()) < samples) {
    const PackedBatch batch = source.next(max_tokens);
    EXPECT_LE(batch.size(), max_tokens);
    for (const auto number : numbers(batch)) found.push_back(number);
  }
  found.resize(static_cast<std::size_t>(samples));
  return found;
}

TEST(PackedSource, EveryEpochHoldsEverySampleOnceInAnotherOrder) {
  auto source = packed_source(std::make_shared<Counted>(100), 5, {});
  const auto two = take(*source, 200, 40);
  const std::vector<std::int64_t> first(two.begin(), two.begin() + 100), second(two.begin() + 100, two.end());
  EXPECT_EQ(std::set<std::int64_t>(first.begin(), first.end()).size(), 100u);
  EXPECT_EQ(std::set<std::int64_t>(second.begin(), second.end()).size(), 100u);
  EXPECT_NE(first, second);
}

TEST(PackedSource, OrderDependsOnTheSeedAloneAndNotOnTheBatchSize) {
  const auto order = [](std::uint64_t seed, std::int64_t max_tokens) {
    auto source = packed_source(std::make_shared<Counted>(100), seed, {});
    return take(*source, 150, max_tokens);
  };
  EXPECT_EQ(order(1, 16), order(1, 90));
  EXPECT_NE(order(1, 16), order(2, 16));
}

TEST(PackedSource, ContinuesExactlyWhereItWas) {
  auto source = packed_source(std::make_shared<Counted>(30), 9, {});
  take(*source, 40, 20);
  const Json position = source->position();
  const auto expected = take(*source, 50, 20);
  auto resumed = packed_source(std::make_shared<Counted>(30), 9, {});
  take(*resumed, 3, 50);  // a batch is being made ahead: it must not be used
  resumed->restore(position);
  EXPECT_EQ(take(*resumed, 50, 33), expected);
}

TEST(PackedSource, KeepsTheOrderOfTheDataWhenAskedTo) {
  DataConfig config;
  config.shuffle = false;
  auto source = packed_source(std::make_shared<Counted>(5), 1, config);
  EXPECT_EQ(take(*source, 7, 10), (std::vector<std::int64_t>{0, 1, 2, 3, 4, 0, 1}));
}

TEST(PackedSource, CutsWhatFitsNoBatch) {
  auto source = packed_source(std::make_shared<Counted>(7), 1, {});
  for (int i = 0; i < 20; ++i) EXPECT_LE(source->next(4).size(), 4);
  DataConfig config;
  config.max_length = 3;
  auto limited = packed_source(std::make_shared<Counted>(7), 1, config);
  for (int i = 0; i < 5; ++i) EXPECT_LE(limited->next(100).sequences.max_length, 3);
}

TEST(PackedSource, BestFitTakesEverySampleOnceAnEpochAndLeavesLittleEmpty) {
  DataConfig config;
  config.packing = "best_fit";
  auto source = packed_source(std::make_shared<Counted>(2100), 5, config);
  std::vector<std::int64_t> seen;
  std::int64_t tokens = 0, batches = 0;
  while (std::ssize(seen) < 1200) {
    const PackedBatch batch = source->next(33);
    tokens += batch.size();
    ++batches;
    for (const auto number : numbers(batch)) seen.push_back(number);
  }
  EXPECT_EQ(std::set<std::int64_t>(seen.begin(), seen.end()).size(), seen.size());  // all of the first epoch
  EXPECT_GT(static_cast<double>(tokens), 0.99 * 33 * static_cast<double>(batches));
}

TEST(PackedSource, BestFitContinuesExactlyAlsoWithAnotherBatchSize) {
  DataConfig config;
  config.packing = "best_fit";
  auto source = packed_source(std::make_shared<Counted>(900), 9, config);
  take(*source, 40, 20);
  const Json position = source->position();
  EXPECT_FALSE(position["waiting"].empty());
  for (const std::int64_t size : {20, 33}) {
    source->restore(position);
    const auto expected = take(*source, 600, size);
    auto resumed = packed_source(std::make_shared<Counted>(900), 9, config);
    take(*resumed, 3, 50);
    resumed->restore(position);
    EXPECT_EQ(take(*resumed, 600, size), expected);
  }
  // In order, what waits comes first.
  auto in_order = packed_source(std::make_shared<Counted>(900), 9, {});
  in_order->restore(position);
  auto again = packed_source(std::make_shared<Counted>(900), 9, config);
  again->restore(position);
  EXPECT_EQ(take(*in_order, 1, 20), take(*again, 1, 20));
}

TEST(PackedSource, ABlendHoldsTokensByWeight) {
  DataConfig config;
  // Samples of stream 0 hold 5 tokens on average, those of stream 1 50.
  class Long : public Counted {
   public:
    Long() : Counted(30) {}
    PackedBatch::Sample at(std::int64_t index) const override {
      return {std::vector<std::int32_t>(50, 1000 + static_cast<std::int32_t>(index)), {}};
    }
  };
  const std::vector<DataPart> parts = {{std::make_shared<Counted>(900), 3.0}, {std::make_shared<Long>(), 1.0}};
  const auto order = [&](std::uint64_t seed, std::int64_t samples, std::int64_t max_tokens) {
    auto source = packed_source(parts, seed, config);
    return take(*source, samples, max_tokens);
  };
  double short_tokens = 0, long_tokens = 0;
  std::set<std::int64_t> long_ones;
  const auto drawn = order(4, 4096, 300);
  for (const std::int64_t number : drawn) {
    (number < 1000 ? short_tokens : long_tokens) += static_cast<double>(number < 1000 ? number % 7 + 2 : 50);
    if (number >= 1000) long_ones.insert(number);
  }
  EXPECT_NEAR(short_tokens / long_tokens, 3.0, 0.1);
  EXPECT_EQ(long_ones.size(), 30u);
  EXPECT_EQ(drawn, order(4, 4096, 77));
  EXPECT_NE(drawn, order(5, 4096, 300));

  auto source = packed_source(parts, 4, config);
  take(*source, 1500, 100);
  const Json position = source->position();
  const auto expected = take(*source, 900, 100);
  auto resumed = packed_source(parts, 4, config);
  resumed->restore(position);
  EXPECT_EQ(take(*resumed, 900, 60), expected);
}

TEST(PackedSource, TargetsNeverCrossSequences) {
  auto source = packed_source(std::make_shared<Counted>(50), 3, {});
  const PackedBatch batch = source->next(64);
  for (std::int64_t i = 0; i < batch.sequences.count(); ++i) {
    const auto begin = batch.sequences.offsets[i], end = batch.sequences.offsets[i + 1];
    for (auto t = begin; t < end; ++t) {
      EXPECT_EQ(batch.positions[t].item<std::int64_t>(), t - begin);
      EXPECT_EQ(batch.targets[t].item<std::int64_t>(), t + 1 < end ? batch.tokens[t + 1].item<std::int64_t>() : -100);
      EXPECT_EQ(batch.loss_weights[t].item<float>(), t + 1 < end ? 1.0f : 0.0f);
    }
  }
}

}  // namespace
}  // namespace molt
