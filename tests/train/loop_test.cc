#include "train/loop.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/error.h"
#include "base/folder_lock.h"
#include "base/interrupt.h"
#include "formats/safetensors.h"
#include "train/checkpoint.h"
#include "train/support.h"

namespace molt {

using test::lines_of;
using test::names_in;
using test::TinyRun;

namespace loop_test {

std::map<std::string, at::Tensor> weights_of(Model& model) {
  std::map<std::string, at::Tensor> result;
  for (const Parameter& parameter : model.parameters()) result[parameter.name] = parameter.value.detach().clone();
  return result;
}

void expect_equal(const std::map<std::string, at::Tensor>& a, const std::map<std::string, at::Tensor>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [name, value] : a) EXPECT_TRUE(at::equal(value, b.at(name))) << name;
}

void truncate(const fs::path& file) {
  fs::resize_file(file, fs::file_size(file) / 2);
}

}  // namespace loop_test

using namespace loop_test;

class Loop : public test::RunFolder {};

TEST_F(Loop, LearnsAndLeavesWhatARunConsistsOf) {
  LoopConfig config = test::short_loop();
  config.steps = 60;
  config.recompute = "block";
  TinyRun run(folder / "run", config);
  const LoopResult result = run.train();
  EXPECT_EQ(result.step, 60);
  const std::vector<Json> metrics = lines_of(folder / "run/metrics.jsonl");
  EXPECT_LT(result.loss, 0.5 * metrics[0]["loss"].get<double>());
  EXPECT_EQ(metrics.size(), 60u / 4 + 60u / 6);
  for (const char* key : {"step", "tokens", "loss", "cross_entropy", "gradient_norm", "learning_rate", "tokens_per_second",
                          "flops_per_second", "mfu", "memory", "seconds"}) {
    ASSERT_TRUE(metrics[0].contains(key)) << key;
    EXPECT_GT(metrics[0][key].get<double>(), 0) << key;
  }
  EXPECT_EQ(metrics[0]["loss"], metrics[0]["cross_entropy"]);
  EXPECT_EQ(metrics[0]["learning_rate"], 1e-2);
  EXPECT_EQ(metrics.back()["evaluation"]["held_out.loss"].get<double>(), result.evaluation.at("held_out.loss"));
  EXPECT_LT(result.evaluation.at("held_out.loss"), 0.5 * metrics[1]["evaluation"]["held_out.loss"].get<double>());
  std::string events;
  for (const Json& event : lines_of(folder / "run/events.jsonl")) events += event["event"].get<std::string>().substr(0, 1);
  EXPECT_EQ(std::count(events.begin(), events.end(), 'c'), 12);
  EXPECT_EQ(events.front(), 's');
  EXPECT_EQ(events.substr(events.size() - 3), "cee");
  EXPECT_EQ(result.checkpoint, folder / "run/checkpoints/00000060");
  EXPECT_EQ(names_in(folder / "run"), (std::set<std::string>{"config.yaml", "metrics.jsonl", "events.jsonl", "checkpoints"}));
  EXPECT_EQ(names_in(folder / "run/checkpoints"), (std::set<std::string>{"00000055", "00000060"}));
  EXPECT_EQ(names_in(result.checkpoint),
            (std::set<std::string>{"checksums.json", "export", "optimizer.safetensors", "state.json"}));
  const Json state = read_json(result.checkpoint / "state.json");
  EXPECT_EQ(state["versions"]["molt"], "test");
  EXPECT_EQ(state["threads"], at::get_num_threads());
  EXPECT_EQ(state["dtype"], "float32");
}

TEST_F(Loop, OneBatchOfEightAndEightBatchesOfOneAgree) {
  std::map<std::string, at::Tensor> gradients[2];
  for (const int samples : {8, 1}) {
    LoopConfig config = test::short_loop();
    config.steps = 1;
    config.micro_batches = 8 / samples;
    config.optimizer.clip_norm = 0;
    TinyRun run(folder / std::to_string(samples), config);
    run.source = test::CountingSource(samples);
    run.train();
    for (const Parameter& parameter : run.model->parameters()) gradients[samples == 8][parameter.name] = parameter.value.grad();
  }
  for (const auto& [name, gradient] : gradients[0]) {
    EXPECT_GT(gradient.abs().max().item<float>(), 0) << name;
    EXPECT_LT((gradient - gradients[1].at(name)).abs().max().item<float>(), 1e-6) << name;
  }
}

TEST_F(Loop, FrozenParametersStayTheTeachersOwn) {
  TinyRun run(folder / "run");
  const std::unique_ptr<Model> teacher = run.model->share();
  const auto before = weights_of(*teacher);
  run.config.trainable = {"layers.1.*", "!*norm*"};
  const LoopResult result = run.train();
  expect_equal(before, weights_of(*teacher));
  std::map<std::string, const void*> teachers;
  for (const Parameter& parameter : teacher->parameters()) teachers[parameter.name] = parameter.value.data_ptr();
  std::set<std::string> trained;
  for (const Parameter& parameter : run.model->parameters()) {
    if (parameter.value.data_ptr() == teachers.at(parameter.name)) {
      EXPECT_FALSE(parameter.value.requires_grad()) << parameter.name;
      EXPECT_FALSE(parameter.value.grad().defined()) << parameter.name;
    } else {
      trained.insert(parameter.name);
      EXPECT_FALSE(at::equal(parameter.value, before.at(parameter.name))) << parameter.name;
    }
  }
  ASSERT_FALSE(trained.empty());
  for (const std::string& name : trained) {
    EXPECT_TRUE(name.starts_with("layers.1.") && name.find("norm") == std::string::npos) << name;
  }
  EXPECT_EQ(SafetensorsFile::open(result.checkpoint / "optimizer.safetensors").tensors().size(), 3 * trained.size() + 1);
}

TEST_F(Loop, PatternsThatMatchNothingAreRefused) {
  LoopConfig config = test::short_loop();
  config.trainable = {"blocks.*"};
  TinyRun run(folder / "run", config);
  EXPECT_TRUE(
      error_of([&] { run.train(); }).starts_with("training.trainable: found \"blocks.*\", which no parameter's name matches"));
}

TEST_F(Loop, ALossThatIsNotFiniteStopsTheRun) {
  test::BreakingObjective breaking(15);  // the second micro-batch of step 8
  TinyRun run(folder / "run");
  LoopParts parts = {*run.model, breaking, run.source, {}, folder / "run", run.parts.export_model, "", 0, {}};
  const std::string error = error_of([&] { train(run.config, parts); });
  EXPECT_TRUE(error.find("step 8: found a loss of inf") != std::string::npos) << error;
  EXPECT_TRUE(error.find("nonfinite_step_8.safetensors") != std::string::npos) << error;
  EXPECT_TRUE(error.find("checkpoints/00000005") != std::string::npos) << error;
  const SafetensorsFile batches = SafetensorsFile::open(folder / "run/nonfinite_step_8.safetensors");
  EXPECT_EQ(batches.tensors().size(), 10u);
  test::CountingSource source;
  for (int i = 0; i < 15; ++i) source.next(40);
  EXPECT_TRUE(at::equal(batches.tensor("micro_batch_1.tokens"), source.next(40).tokens));
  for (const Parameter& parameter : run.model->parameters()) EXPECT_TRUE(at::isfinite(parameter.value).all().item<bool>());
  EXPECT_EQ(lines_of(folder / "run/events.jsonl").back()["event"], "nonfinite");
}

TEST_F(Loop, ADamagedCheckpointIsNamedAndTheOneBeforeItUsed) {
  TinyRun straight(folder / "straight");
  straight.train();
  {
    TinyRun run(folder / "run");
    run.train();
  }
  truncate(folder / "run/checkpoints/00000024/optimizer.safetensors");
  TinyRun again(folder / "run");
  testing::internal::CaptureStderr();
  const LoopResult result = again.train();
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_TRUE(said.find("00000024/optimizer.safetensors") != std::string::npos) << said;
  EXPECT_TRUE(said.find("continuing from " + (folder / "run/checkpoints/00000020").string()) != std::string::npos) << said;
  EXPECT_EQ(result.step, 24);
  expect_equal(weights_of(*straight.model), weights_of(*again.model));
  EXPECT_EQ(test::timeless_metrics(folder / "run"), test::timeless_metrics(folder / "straight"));
  EXPECT_EQ(names_in(folder / "run/checkpoints"), (std::set<std::string>{"00000020", "00000024", "00000024.damaged"}));
}

TEST_F(Loop, EveryChangedByteOfACheckpointIsFound) {
  TinyRun(folder / "run").train();
  const fs::path newest = folder / "run/checkpoints/00000024";
  for (const char* name : {"optimizer.safetensors", "export/model.safetensors", "state.json"}) {
    const std::string whole = read_file(newest / name);
    std::string changed = whole;
    changed[changed.size() - 5] ^= 1;
    write_file(newest / name, changed);
    EXPECT_TRUE(error_of([&] { read_checkpoint(newest); }).find(name) != std::string::npos) << name;
    write_file(newest / name, whole);
  }
  EXPECT_EQ(read_checkpoint(newest).step, 24);
}

TEST_F(Loop, CheckpointsOfRoundStepsStay) {
  LoopConfig config = test::short_loop();
  config.checkpoint_every = 2;
  config.keep_checkpoints = 1;
  config.keep_every = 10;
  TinyRun(folder / "run", config).train();
  EXPECT_EQ(names_in(folder / "run/checkpoints"), (std::set<std::string>{"00000010", "00000020", "00000024"}));
}

// Who ran out of disk space asks for fewer, and there is no room for a further one before the others go.
TEST_F(Loop, FewerCheckpointsThanBeforeStayFromTheBeginning) {
  LoopConfig config = test::short_loop();
  config.keep_checkpoints = 9;
  TinyRun(folder / "run", config).train();
  EXPECT_GT(list_checkpoints(folder / "run").size(), 2u);
  config.keep_checkpoints = 1;
  TinyRun(folder / "run", config).train();
  EXPECT_EQ(names_in(folder / "run/checkpoints"), (std::set<std::string>{"00000024"}));
}

TEST_F(Loop, ACheckpointWrittenInTheBackgroundIsThatOfItsStep) {
  LoopConfig config = test::short_loop();
  config.checkpoint_every = 4;
  config.keep_checkpoints = 9;
  config.average_decay = 0.9;
  TinyRun behind(folder / "behind", config);
  const auto quick = behind.parts.export_model;
  behind.parts.export_model = [&](Model& model, const fs::path& target) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));  // steps go on meanwhile
    quick(model, target);
  };
  behind.train();
  config.save_in_background = false;
  TinyRun(folder / "at_once", config).train();
  for (const fs::path& checkpoint : list_checkpoints(folder / "at_once")) {
    for (const char* file : {"export/model.safetensors", "average/model.safetensors", "optimizer.safetensors"}) {
      const fs::path other = folder / "behind/checkpoints" / checkpoint.filename() / file;
      EXPECT_TRUE(read_file(checkpoint / file) == read_file(other)) << other;
    }
  }
  EXPECT_EQ(list_checkpoints(folder / "behind").size(), 6u);
}

TEST_F(Loop, ACheckpointSaysForHowLongStepsStoodStill) {
  constexpr double writes = 0.3;  // seconds, at least
  const auto stalled = [&](bool in_background) {
    LoopConfig config = test::short_loop();
    config.checkpoint_every = 12;
    config.save_in_background = in_background;
    TinyRun run(folder / (in_background ? "behind" : "at_once"), config);
    const auto quick = run.parts.export_model;
    run.parts.export_model = [&](Model& model, const fs::path& target) {
      std::this_thread::sleep_for(std::chrono::duration<double>(writes));
      quick(model, target);
    };
    int batches = 0;
    run.source.before_next = [&] {
      if (++batches != 30) return;  // in step 15: wait here, so that the next checkpoint need not
      while (!fs::exists(run.parts.run / "checkpoints/00000012")) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    };
    run.train();
    for (const Json& event : lines_of(run.parts.run / "events.jsonl")) {
      if (event["event"] == "checkpoint") return event["stalled"].get<double>();
    }
    return -1.0;
  };
  EXPECT_GE(stalled(false), writes);
  const double behind = stalled(true);
  EXPECT_GT(behind, 0);
  EXPECT_LT(behind, writes);
}

TEST_F(Loop, TheAverageFollowsTheWeights) {
  LoopConfig config = test::short_loop();
  config.steps = 3;
  config.checkpoint_every = 1;
  config.keep_checkpoints = 3;
  config.average_decay = 0.75;
  TinyRun run(folder / "run", config);
  const std::string name = "layers.0.mlp.down.weight";
  at::Tensor expected = weights_of(*run.model).at(name);
  run.train();
  for (const char* step : {"00000001", "00000002", "00000003"}) {
    const fs::path checkpoint = folder / "run/checkpoints" / step;
    const SafetensorsFile state = SafetensorsFile::open(checkpoint / "optimizer.safetensors");
    expected = 0.75 * expected + 0.25 * state.tensor(name + ".master");
    EXPECT_TRUE(at::allclose(state.tensor(name + ".average"), expected, 1e-5, 1e-7)) << step;
    EXPECT_TRUE(
        at::equal(SafetensorsFile::open(checkpoint / "average/model.safetensors").tensor(name), state.tensor(name + ".average")));
  }
}

TEST_F(Loop, LayerNormsAddUpToTheGradientNorm) {
  LoopConfig config = test::short_loop();
  config.log_every = 1;
  config.log_layer_norms = true;
  TinyRun(folder / "run", config).train();
  const Json line = lines_of(folder / "run/metrics.jsonl")[0];
  std::set<std::string> parts;
  double squares = 0;
  for (const auto& [part, norm] : line["gradient_norms"].items()) {
    parts.insert(part);
    squares += norm.get<double>() * norm.get<double>();
  }
  EXPECT_EQ(parts, (std::set<std::string>{"embedding", "final_norm", "head", "layers.0", "layers.1"}));
  EXPECT_NEAR(std::sqrt(squares), line["gradient_norm"].get<double>(), 1e-5);
}

TEST_F(Loop, TheZLossIsPartOfTheLoss) {
  TinyRun run(folder / "run");
  NextToken objective(0.01);
  train(run.config, {*run.model, objective, run.source, {}, folder / "run", {}, "", 0, {}});
  for (const Json& line : lines_of(folder / "run/metrics.jsonl")) {
    const double cross_entropy = line["cross_entropy"].get<double>(), z = line["z_loss"].get<double>();
    EXPECT_GT(z, 1.0);  // log(32)^2 = 12 at the start
    EXPECT_NEAR(line["loss"].get<double>(), cross_entropy + 0.01 * z, 1e-5);
  }
}

TEST_F(Loop, WhenNoCheckpointCanBeReadTheRunDoesNotStartAnew) {
  TinyRun(folder / "run").train();
  truncate(folder / "run/checkpoints/00000024/optimizer.safetensors");
  write_file(folder / "run/checkpoints/00000020/state.json", "{\"step\": \"many\"}");
  const std::string error = error_of([&] { TinyRun(folder / "run").train(); });
  EXPECT_TRUE(error.find("00000024/optimizer.safetensors") != std::string::npos) << error;
  EXPECT_TRUE(error.find("remove that folder to start anew") != std::string::npos) << error;
}

TEST_F(Loop, ARunFolderHasOneProcessAtATime) {
  const FolderLock lock(folder / "run");
  EXPECT_EQ(error_of([&] { TinyRun(folder / "run").train(); }),
            (folder / "run").string() + ": another process is at work in this folder");
}

// Every `period`-th batch of three tokens is learned from; none where it is 0.
class MostlySilent : public BatchSource {
 public:
  explicit MostlySilent(int period) : period_(period) {}
  PackedBatch next(std::int64_t) override {
    const float weight = period_ > 0 && ++taken_ % period_ == 0 ? 1.0f : 0.0f;
    return PackedBatch::of({{{1, 2, 3}, {weight, weight, weight}}});
  }
  Json position() const override { return Json::object(); }
  void restore(const Json&) override {}

 private:
  int period_, taken_ = 0;
};

TEST_F(Loop, DataWithoutLossTokensIsAnError) {
  MostlySilent silent(0);
  TinyRun run(folder / "run");
  LoopParts parts = {*run.model, run.next_token, silent, {}, folder / "run", {}, "", 0, {}};
  EXPECT_EQ(error_of([&] { train(run.config, parts); }),
            "training data: found no token with a loss weight in the 3006 tokens of step 1, expected at least one");
}

TEST_F(Loop, AStepReadsOnUntilThereIsALossToken) {
  MostlySilent source(5);
  TinyRun run(folder / "run");
  run.config.steps = 4;
  run.config.log_every = 1;
  LoopParts parts = {*run.model, run.next_token, source, {}, folder / "run", {}, "", 0, {}};
  EXPECT_EQ(train(run.config, parts).step, 4);
  for (const Json& line : lines_of(folder / "run/metrics.jsonl")) {
    EXPECT_EQ(line["tokens"], 15 * line["step"].get<int>());
    EXPECT_GT(line["loss"].get<double>(), 0);
  }
}

TEST_F(Loop, Bfloat16WeightsAreSavedWithTheirMasters) {
  TinyRun run(folder / "run");
  run.model = test::tiny_model(at::kBFloat16);
  LoopParts parts = {*run.model, run.next_token, run.source, {&run.held_out}, folder / "run", {}, "", 0, {}};
  run.config.checkpoint_every = 24;
  const LoopResult result = train(run.config, parts);
  EXPECT_LT(result.loss, 3.0);
  const SafetensorsFile file = SafetensorsFile::open(result.checkpoint / "optimizer.safetensors");
  for (const Parameter& parameter : run.model->parameters()) {
    const at::Tensor master = file.tensor(parameter.name + ".master");
    EXPECT_EQ(master.scalar_type(), at::kFloat);
    EXPECT_TRUE(at::equal(master.to(parameter.value.scalar_type()), parameter.value)) << parameter.name;
  }
  const std::unique_ptr<Model> fresh = test::tiny_model(at::kBFloat16);
  LoopParts resumed = {*fresh, run.next_token, run.source, {&run.held_out}, folder / "run", {}, "", 0, {}};
  EXPECT_EQ(train(run.config, resumed).evaluation, result.evaluation);
  expect_equal(weights_of(*run.model), weights_of(*fresh));
}

}  // namespace molt
