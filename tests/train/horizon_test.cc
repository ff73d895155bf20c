#include "train/horizon.h"

#include <nlohmann/json.hpp>

#include "train/checkpoint.h"
#include "train/support.h"

namespace molt::horizon_test {

using test::TinyRun;

LoopConfig config_of(const std::string& yaml) {
  LoopConfig config;
  parse_config(yaml, "loop.yaml", {}, [&](ConfigVisitor& v) { config.visit(v); });
  return config;
}

// Steps until the end when step i (from 1) has losses[i - 1], the last one for ever; each horizon is saved and restored before
// every step.
std::int64_t end_of(const LoopConfig& config, const std::vector<double>& losses) {
  Json state = Horizon(config).state();
  for (std::int64_t step = 0;; ++step) {
    Horizon horizon(config);
    horizon.restore(state, "state");
    if (horizon.reached(step, 10 * step)) return step;
    const double loss = losses[std::min<std::size_t>(static_cast<std::size_t>(step), losses.size() - 1)];
    horizon.observe(step + 1, 10 * (step + 1), 3 * loss, 3);
    state = parse_json(to_line(horizon.state()), "state");
  }
}

TEST(Horizon, StepsOrTokensEndARun) {
  EXPECT_EQ(end_of(config_of("steps: 7"), {1}), 7);
  EXPECT_EQ(end_of(config_of("{steps: 7, tokens: 101}"), {1}), 11);  // ten tokens a step
  EXPECT_EQ(end_of(config_of("tokens: 100"), {1}), 10);
}

TEST(Horizon, TheScheduleOfTokensIsThatOfFullMicroBatches) {
  const LoopConfig steps = config_of("{steps: 50, schedule: {type: linear, warmup: 5}}");
  const LoopConfig tokens =
      config_of("{tokens: 5000, micro_batch_tokens: 20, micro_batches: 5, schedule: {type: linear, warmup: 5}}");
  for (std::int64_t step = 0; step < 50; ++step) {
    EXPECT_EQ(Horizon(steps).factor(step, 0), Horizon(tokens).factor(123, 100 * step + 99)) << step;
  }
}

TEST(Horizon, ALossThatStoppedFallingEndsARun) {
  const std::string flat = "steps: 100\nschedule: {type: constant}\nflat: {window: 2, improvement: 0.1, patience: 2}\n";
  // Means of windows: 4, 2, 1.9, 1.9, …: the third and fourth are flat.
  EXPECT_EQ(end_of(config_of(flat), {5, 3, 2, 2, 1.9, 1.9}), 8);
  // A window that falls far enough in between begins the count anew: 4, 3.9, 3, 2.9, 2.9.
  EXPECT_EQ(end_of(config_of(flat), {4, 4, 3.9, 3.9, 3, 3, 2.9}), 10);
  // One window above the lowest is no better than a flat one, and does not raise the lowest: 2, 9, 1.9.
  EXPECT_EQ(end_of(config_of(flat), {2, 2, 9, 9, 1.9}), 6);
  EXPECT_EQ(end_of(config_of("steps: 30\nflat: {window: 2, improvement: 0}"), std::vector<double>(1, 1.0)), 30);
  EXPECT_EQ(end_of(config_of("steps: 6\nflat: {window: 4}"), {1}), 6);  // never after its steps
}

TEST(Horizon, AStableRateFallsOnceTheLossIsFlat) {
  const LoopConfig config = config_of(
      "steps: 1000\nschedule: {type: warmup_stable_decay, warmup: 2, decay_fraction: 0.2, final_fraction: 0}\n"
      "flat: {window: 5, improvement: 0.01, patience: 3}\n");
  EXPECT_EQ(end_of(config, {1}), 25);  // flat after 20 steps, and five more are a fifth of all
  Horizon horizon(config);
  for (std::int64_t step = 1; step <= 20; ++step) {
    EXPECT_EQ(horizon.factor(step, 0), 1) << step;
    EXPECT_EQ(horizon.observe(step, 0, 1, 1), step == 20);
  }
  for (std::int64_t step = 20; step < 25; ++step) EXPECT_NEAR(horizon.factor(step, 0), 1 - (step - 19) / 5.0, 1e-12);
}

TEST(Horizon, MistakesAreNamed) {
  EXPECT_EQ(error_of([] { config_of("flat: {patience: 0}"); }),
            "loop.yaml: flat: patience: found 0, expected a number from 1 up");
  EXPECT_EQ(error_of([] { config_of("tokens: -1"); }), "loop.yaml: tokens: found -1, expected a number from 0 up");
}

class HorizonOfARun : public test::RunFolder {
 protected:
  // Runs it whole, and again with everything behind the first checkpoint taken away.
  void expect_resumable(const LoopConfig& config, std::int64_t steps) {
    const LoopResult whole = TinyRun(folder / "whole", config).train();
    EXPECT_EQ(whole.step, steps);
    TinyRun(folder / "cut", config).train();
    std::vector<fs::path> checkpoints = list_checkpoints(folder / "cut");
    ASSERT_GT(checkpoints.size(), 1u);
    checkpoints.pop_back();
    for (const fs::path& later : checkpoints) fs::remove_all(later);
    TinyRun again(folder / "cut", config);
    const LoopResult cut = again.train();
    EXPECT_EQ(cut.step, whole.step);
    EXPECT_EQ(cut.loss, whole.loss);
    EXPECT_EQ(test::timeless_metrics(folder / "cut"), test::timeless_metrics(folder / "whole"));
  }
};

TEST_F(HorizonOfARun, OfTokensIsResumable) {
  LoopConfig config = test::short_loop();
  config.tokens = 10 * config.micro_batch_tokens * config.micro_batches;
  config.steps = 1;
  config.checkpoint_every = 3;
  config.keep_checkpoints = 100;
  config.schedule = {.type = "linear", .warmup = 0, .final_fraction = 0.1};
  const LoopResult result = TinyRun(folder / "run", config).train();
  const Checkpoint last = read_checkpoint(result.checkpoint);
  EXPECT_GE(last.tokens, config.tokens);
  EXPECT_LT(last.tokens, config.tokens + config.micro_batch_tokens * config.micro_batches);
  EXPECT_GT(result.step, 10);  // micro-batches are not quite full
  const std::vector<Json> metrics = test::lines_of(folder / "run/metrics.jsonl");
  double rate = 1;
  for (const Json& line : metrics) {
    if (!line.contains("learning_rate")) continue;
    EXPECT_LE(line["learning_rate"].get<double>(), rate);
    rate = line["learning_rate"].get<double>();
  }
  EXPECT_NEAR(rate, 0.1 * config.optimizer.learning_rate, 1e-9);
  expect_resumable(config, result.step);
}

TEST_F(HorizonOfARun, OfAFlatLossIsResumable) {
  LoopConfig config = test::short_loop();
  config.steps = 200;
  config.optimizer.learning_rate = 0;  // nothing is learned
  config.optimizer.weight_decay = 0;
  config.flat = {.window = 6, .improvement = 0.3, .patience = 2};
  config.checkpoint_every = 4;  // within windows
  config.keep_checkpoints = 100;
  expect_resumable(config, 18);
  std::vector<std::string> events;
  for (const Json& event : test::lines_of(folder / "whole/events.jsonl")) {
    if (event["event"] == "flat") events.push_back(concat(event["step"]));
  }
  EXPECT_EQ(events, std::vector<std::string>{"18"});
}

}  // namespace molt::horizon_test
