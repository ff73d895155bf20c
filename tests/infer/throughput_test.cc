#include "infer/throughput.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "tiny_models.h"

namespace molt {
namespace throughput_test {

TEST(Throughput, MeasuresEverySettingOfEveryModel) {
  const auto teacher = testing_infer::tiny_model({"attention", "attention"}),
             hybrid = testing_infer::tiny_model({"attention", "mamba"});
  std::int64_t calls = 0, whole = 0;
  const auto rows = measure_throughput({teacher.get(), hybrid.get()},
                                       {.batches = {1, 5}, .contexts = {3, 40}, .tokens = 2, .runs = 2, .prefill_tokens = 16},
                                       [&](std::int64_t done, std::int64_t total) {
                                         EXPECT_EQ(done, ++calls);
                                         whole = total;
                                       });
  EXPECT_EQ(calls, 24);
  EXPECT_EQ(whole, 24);
  ASSERT_EQ(rows.size(), 12u);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const ThroughputRow& row = rows[i];
    EXPECT_EQ(row.model, static_cast<std::int64_t>(i % 2));
    EXPECT_EQ(row.context, i < 6 ? 3 : 40);
    EXPECT_EQ(row.work, i / 2 % 3 == 0 ? ThroughputRow::Work::prefill : ThroughputRow::Work::decode);
    EXPECT_EQ(row.batch, i / 2 % 3 == 2 ? 5 : 1);
    EXPECT_GT(row.lowest, 0);
    EXPECT_LE(row.lowest, row.median);
    EXPECT_LE(row.median, row.highest);
    EXPECT_TRUE(row.model != 0 || row.ratio == 1);
    // fp32 keys and values of 2 heads of 8 a token and layer; a Mamba layer's window and state.
    const std::int64_t attention = row.context * 2 * 2 * 8 * 4, mamba = (16 * 3 + 32 * 8) * 4;
    EXPECT_EQ(row.cache_bytes, row.batch * (row.model == 0 ? 2 * attention : attention + mamba));
  }
  int runs = 0;
  const auto count = [&](std::int64_t, std::int64_t) { ++runs; };
  EXPECT_THROW(measure_throughput({teacher.get()}, {.batches = {1, ThroughputOptions::kLargest}}, count), UserError);
  EXPECT_EQ(runs, 0);
  EXPECT_THROW(measure_throughput({teacher.get()}, {.batches = {-1}}), UserError);
  EXPECT_THROW(measure_throughput({teacher.get()}, {.runs = 0}), UserError);
}

// Counts the tokens that pass.
class CountingMamba : public MambaMixer {
 public:
  CountingMamba(const MambaConfig& config, const ModelConfig& model, std::int64_t& count)
      : MambaMixer(config, model), count_(count) {}
  at::Tensor extend(const at::Tensor& hidden, const Step& step, BlockCache& cache) const override {
    count_ += hidden.size(0);
    return MambaMixer::extend(hidden, step, cache);
  }

 private:
  std::int64_t& count_;
};

// A first run alone has costs that are no part of a model's speed.
TEST(Throughput, AModelWarmsUpBeforeItsOnlyRun) {
  std::int64_t count = 0;
  const auto model = testing_infer::tiny_model({"mamba"});
  auto mixer = std::make_unique<CountingMamba>(dynamic_cast<const MambaConfig&>(model->blocks[0].mixer().config()),
                                               model->config(), count);
  mixer->initialise({.seed = 1});
  model->set_mixer(0, "mamba", std::move(mixer));
  std::vector<std::int64_t> counts;
  const auto note = [&](std::int64_t, std::int64_t) { counts.push_back(count); };
  measure_throughput({model.get()}, {.batches = {3}, .contexts = {40}, .tokens = 6, .runs = 1, .prefill_tokens = 16}, note);
  EXPECT_EQ(counts, (std::vector<std::int64_t>{40 + 40, 40 + 40 + 3 * (4 + 6)}));
  counts = {}, count = 0;
  measure_throughput({model.get()}, {.tokens = 6, .runs = 1, .requests = 3}, note);
  EXPECT_EQ(counts, (std::vector<std::int64_t>{3 * (4 + 6)}));
}

}  // namespace throughput_test
}  // namespace molt
