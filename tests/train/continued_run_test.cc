// What a run is continued with: its own configuration, data and models, or others that are accepted; and its own records.
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/counted.h"
#include "train/checkpoint.h"
#include "train/loop.h"
#include "train/support.h"

namespace molt {

using test::lines_of;
using test::names_in;
using test::TinyRun;

namespace continued_run_test {

std::vector<std::string> texts_of(const fs::path& path) {
  std::vector<std::string> texts;
  LineReader reader(path);
  for (std::string_view line; reader.next(line);) texts.emplace_back(line);
  return texts;
}

}  // namespace continued_run_test

using namespace continued_run_test;

class ContinuedRun : public test::RunFolder {};

TEST_F(ContinuedRun, ACheckpointOfAnotherShapeIsRefused) {
  TinyRun(folder / "run").train();
  TinyRun other(folder / "run");
  other.config.trainable = {"layers.0.*"};  // as if the model had changed under an unchanged configuration
  const std::string error = error_of([&] { other.train(); });
  EXPECT_TRUE(error.find("found the state of a parameter that is not trained here") != std::string::npos) << error;
}

TEST_F(ContinuedRun, ARunIsContinuedWithItsOwnConfigurationOnly) {
  LoopConfig config = test::short_loop();
  TinyRun(folder / "run", config).train();
  config.optimizer.learning_rate = 0.5;
  const std::string error = error_of([&] { TinyRun(folder / "run", config).train(); });
  EXPECT_TRUE(error.find("optimizer.learning_rate (here \"0.01\", now \"0.5\")") != std::string::npos) << error;
  config = test::short_loop();
  config.log_every = 3;
  EXPECT_EQ(TinyRun(folder / "run", config).train().step, 24);
}

TEST_F(ContinuedRun, ARunIsContinuedFromItsOwnDataOnly) {
  TinyRun first(folder / "run");
  first.parts.data_fingerprint = "one";
  first.train();
  TinyRun other(folder / "run");
  other.parts.data_fingerprint = "two";
  EXPECT_NE(error_of([&] { other.train(); }).find("the content of data (here one, now two)"), std::string::npos);
  other.parts.changes = Changes::accept;
  EXPECT_EQ(other.train().step, 24);
}

// With the steps twice as many and half as large the run reads on behind the samples that it has learned from.
TEST_F(ContinuedRun, ChangesThatAreAcceptedActFromTheLastCheckpointOn) {
  TinyRun(folder / "run").train();
  const auto learned_from = [&] { return read_checkpoint(list_checkpoints(folder / "run")[0]).data->at("sample").get<int>(); };
  const int before = learned_from();
  LoopConfig longer = test::short_loop();
  longer.steps = 30;
  longer.micro_batch_tokens /= 2;
  TinyRun refused(folder / "run", longer);
  refused.parts.changes = Changes::offer;
  const std::string error = error_of([&] { refused.train(); });
  EXPECT_NE(error.find("--accept-changes"), std::string::npos) << error;

  TinyRun continued(folder / "run", longer);
  continued.parts.changes = Changes::accept;
  int batches = 0, first_sample = -1;
  continued.source.before_next = [&] {
    if (batches++ == 0) first_sample = continued.source.position().at("sample").get<int>();
  };
  EXPECT_EQ(continued.train().step, 30);
  EXPECT_EQ(first_sample, before);
  EXPECT_GT(learned_from(), before);
  const std::vector<Json> events = lines_of(folder / "run/events.jsonl");
  const auto resume = std::find_if(events.begin(), events.end(), [](const Json& event) { return event["event"] == "resume"; });
  ASSERT_NE(resume, events.end());
  EXPECT_EQ(resume->at("changes").at("steps"), Json::parse(R"(["\"24\"", "\"30\""])"));
}

TEST_F(ContinuedRun, AChangeThatTheCheckpointDoesNotFitLeavesItWhereItIs) {
  TinyRun(folder / "run").train();
  LoopConfig muon = test::short_loop();
  muon.optimizer.type = "muon";
  TinyRun other(folder / "run", muon);
  other.parts.changes = Changes::accept;
  const std::string config = read_file(folder / "run/config.yaml");
  EXPECT_NE(error_of([&] { other.train(); }).find("found the state of a parameter that is not trained here"), std::string::npos);
  EXPECT_EQ(names_in(folder / "run/checkpoints"), (std::set<std::string>{"00000020", "00000024"}));
  EXPECT_EQ(read_file(folder / "run/config.yaml"), config);
}

TEST_F(ContinuedRun, AFinishedRunReportsAgainWithoutWorking) {
  const LoopResult first = TinyRun(folder / "run").train();
  TinyRun again(folder / "run");
  again.source.before_next = [] { FAIL() << "a finished run asked for data"; };
  const LoopResult second = again.train();
  EXPECT_EQ(second.loss, first.loss);
  EXPECT_EQ(second.evaluation, first.evaluation);
  EXPECT_EQ(second.checkpoint, first.checkpoint);
}

TEST_F(ContinuedRun, AnotherThreadCountIsAWarning) {
  TinyRun(folder / "run").train();
  const int threads = at::get_num_threads();
  at::set_num_threads(threads + 1);
  testing::internal::CaptureStderr();
  TinyRun(folder / "run").train();
  const std::string said = testing::internal::GetCapturedStderr();
  at::set_num_threads(threads);
  EXPECT_TRUE(said.find(concat("the run used ", counted(threads, "thread"), ", now it has ", threads + 1)) != std::string::npos)
      << said;
}
TEST_F(ContinuedRun, OfManyChangesTheFirstAreNamed) {
  TinyRun(folder / "run").train();
  write_file(folder / "run/config.yaml", "");
  const std::string error = error_of([&] { TinyRun(folder / "run").train(); });
  EXPECT_NE(error.find("settings or files: average_decay (here absent, now \"0.0\"), "), std::string::npos) << error;
  EXPECT_NE(error.find(" more; restore them"), std::string::npos) << error;
  EXPECT_LT(error.size(), 1000u) << error;
}

TEST_F(ContinuedRun, DamagedLinesOfMetricsAreNamedAndTheRunGoesOn) {
  TinyRun(folder / "run").train();
  fs::remove_all(folder / "run/checkpoints/00000024");
  const fs::path metrics = folder / "run/metrics.jsonl";
  const std::vector<std::string> whole = texts_of(metrics);
  std::vector<std::string> damaged = whole;
  damaged[1] = damaged[1].substr(0, damaged[1].size() / 2);
  damaged[2] = std::string(damaged[2].size(), '\0');  // as after a loss of power
  damaged.push_back(R"({"loss": 1})");                // beyond the checkpoint
  std::string text;
  for (const std::string& line : damaged) text += line + "\n";
  write_file(metrics, text);

  testing::internal::CaptureStderr();
  EXPECT_EQ(TinyRun(folder / "run").train().step, 24);
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find(metrics.string() + ":2:"), std::string::npos) << said;
  EXPECT_NE(said.find("1 further line; the run goes on"), std::string::npos) << said;
  const std::vector<std::string> now = texts_of(metrics);
  ASSERT_EQ(now.size(), whole.size());
  EXPECT_EQ(now[1], damaged[1]);
  EXPECT_EQ(now[2], damaged[2]);
  EXPECT_EQ(now[3], whole[3]);
}

TEST_F(ContinuedRun, AnEvaluationThatWasNotFiniteIsReadAgain) {
  TinyRun(folder / "run").train();
  const fs::path metrics = folder / "run/metrics.jsonl";
  std::string text;
  for (std::string line : texts_of(metrics)) {
    if (const std::size_t figure = line.find("\"held_out.loss\":"); figure != std::string::npos) {
      line.replace(figure, line.find_first_of(",}", figure) - figure, "\"held_out.loss\":null");
    }
    text += line + "\n";
  }
  write_file(metrics, text);
  EXPECT_TRUE(std::isnan(TinyRun(folder / "run").train().evaluation.at("held_out.loss")));
}

}  // namespace molt
