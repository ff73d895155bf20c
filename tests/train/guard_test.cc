#include "train/guard.h"

#include <ATen/Functions.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "formats/safetensors.h"
#include "train/support.h"

namespace molt {

namespace guard_test {

// Next-token loss, with the weights of some calls' tokens (from call 0 on) multiplied.
class Kicking : public NextToken {
 public:
  Kicking(std::int64_t begin, std::int64_t end, double factor) : begin_(begin), end_(end), factor_(factor) {}
  Loss loss(const Model& model, const PackedBatch& batch, Recompute recompute) override {
    PackedBatch kicked = batch;
    if (calls_ >= begin_ && calls_ < end_) {
      const at::Tensor& weights = batch.loss_weights;
      kicked.loss_weights = at::where(weights > 0, weights * factor_, weights);
    }
    ++calls_;
    return NextToken::loss(model, kicked, recompute);
  }

 private:
  std::int64_t begin_, end_, calls_ = 0;
  double factor_;
};

at::Tensor number(double value) {
  return at::full({}, value);
}

constexpr double kInfinity = std::numeric_limits<double>::infinity();

}  // namespace guard_test

using namespace guard_test;

TEST(SpikeLimit, IsAMultipleOfTheMeanOfGoodSteps) {
  GuardConfig config;
  config.spikes = "skip";
  config.spike_factor = 3;
  config.spike_window = 4;
  SpikeLimit limit(config, at::kCPU);
  for (const double norm : {1.0, 2.0, 3.0, 2.0}) {
    EXPECT_EQ(limit.value().item<double>(), kInfinity);
    limit.observe(number(norm));
  }
  EXPECT_FLOAT_EQ(limit.value().item<float>(), 6.0f);
  limit.observe(number(6.5));
  limit.observe(number(std::nan("")));
  limit.observe(number(kInfinity));
  EXPECT_FLOAT_EQ(limit.value().item<float>(), 6.0f);
  limit.observe(number(4.0));  // the mean goes back four steps: 2 + (4 - 2) / 4
  EXPECT_FLOAT_EQ(limit.value().item<float>(), 7.5f);
  SpikeLimit other(config, at::kCPU);
  other.restore(limit.state());
  EXPECT_FLOAT_EQ(other.value().item<float>(), 7.5f);
  EXPECT_FALSE(SpikeLimit(GuardConfig(), at::kCPU).value().defined());
}

class Guard : public test::RunFolder {
 protected:
  // Runs 24 steps of two micro-batches with micro-batches [begin, end) kicked by `factor`.
  LoopResult train_kicked(std::int64_t begin, std::int64_t end, double factor) {
    Kicking objective(begin, end, factor);
    model = test::tiny_model();
    test::CountingSource source;
    return train(config, {*model, objective, source, {}, folder / "run", {}, "", 0, {}});
  }
  std::vector<Json> events(const std::string& name) {
    std::vector<Json> found;
    for (const Json& event : test::lines_of(folder / "run/events.jsonl")) {
      if (event["event"] == name) found.push_back(event);
    }
    return found;
  }
  LoopConfig config = test::short_loop();
  std::unique_ptr<Model> model;
};

TEST_F(Guard, StepsThatAreNotFiniteAreLeftOutByChoice) {
  config.guard.nonfinite = "skip";
  testing::internal::CaptureStderr();
  const LoopResult result = train_kicked(15, 17, kInfinity);  // steps 8 and 9
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_TRUE(said.find("step 8: found a loss of inf") != std::string::npos) << said;
  EXPECT_EQ(result.step, 24);
  EXPECT_TRUE(std::isfinite(result.loss));
  EXPECT_EQ(events("nonfinite").size(), 2u);
  EXPECT_EQ(events("nonfinite")[1]["action"], "skip");
  EXPECT_EQ(SafetensorsFile::open(folder / "run/nonfinite_step_9.safetensors").tensors().size(), 10u);
  const std::vector<Json> metrics = test::lines_of(folder / "run/metrics.jsonl");
  EXPECT_EQ(metrics[1]["skipped"], 1);
  EXPECT_EQ(metrics[2]["skipped"], 1);
  EXPECT_FALSE(metrics[3].contains("skipped"));
  for (const Json& line : metrics) EXPECT_TRUE(line["loss"].is_number() && line["loss"] > 0) << line;
  for (const Parameter& parameter : model->parameters()) EXPECT_TRUE(at::isfinite(parameter.value).all().item<bool>());
}

TEST_F(Guard, TooManyInARowEndTheRun) {
  config.guard.nonfinite = "skip";
  config.guard.most_skipped = 3;
  const std::string error = error_of([&] { train_kicked(12, 100, kInfinity); });  // from step 7 on
  EXPECT_TRUE(error.find("step 10: found a loss of inf") != std::string::npos) << error;
  EXPECT_TRUE(error.find("3 steps before it were left out") != std::string::npos) << error;
  EXPECT_EQ(events("nonfinite").back()["action"], "stop");
}

TEST_F(Guard, ASpikeIsLeftOutOrStopsTheRunWithTheWeightsOfBefore) {
  config.guard.spikes = "skip";
  config.guard.spike_window = 5;
  config.optimizer.clip_norm = 0;
  EXPECT_EQ(train_kicked(20, 22, 1e4).step, 24);  // step 11
  ASSERT_EQ(events("spike").size(), 1u);
  const Json event = events("spike")[0];
  EXPECT_EQ(event["step"], 11);
  EXPECT_GT(std::stod(event["gradient_norm"].get<std::string>()), event["limit"].get<double>());

  fs::remove_all(folder / "run");
  config.guard.spikes = "stop";
  config.checkpoint_every = 10;
  const std::string error = error_of([&] { train_kicked(20, 22, 1e4); });
  EXPECT_TRUE(error.find("spike_step_11.safetensors") != std::string::npos) << error;
  EXPECT_TRUE(error.find("checkpoints/00000010") != std::string::npos) << error;
  const SafetensorsFile saved = SafetensorsFile::open(folder / "run/checkpoints/00000010/optimizer.safetensors");
  for (const Parameter& parameter : model->parameters()) {
    EXPECT_TRUE(at::equal(saved.tensor(parameter.name + ".master"), parameter.value)) << parameter.name;
  }
}

}  // namespace molt
