// A tiny hybrid, endless data that it can learn, and run folders for the tests of this room.
#pragma once
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "support/error_of.h"
#include "support/temporary_folder.h"
#include "train/loop.h"

namespace molt::test {

// One attention and one Mamba layer, hidden 32, vocabulary 32.
std::unique_ptr<Model> tiny_model(at::ScalarType dtype = at::kFloat);

// Sample i: 4 to 11 tokens that count upwards from a random start, with random loss weights; a function of i alone.
class CountingSource : public BatchSource {
 public:
  // 0 samples a batch: as many as fit.
  explicit CountingSource(std::int64_t samples_a_batch = 0) : samples_a_batch_(samples_a_batch) {}
  PackedBatch next(std::int64_t max_tokens) override;
  Json position() const override;
  void restore(const Json& position) override;

  std::function<void()> before_next;  // called first, when set

 private:
  std::int64_t samples_a_batch_;
  std::int64_t taken_ = 0;
};

// Next-token loss, times infinity in call `broken_call` (from 0).
class BreakingObjective : public NextToken {
 public:
  explicit BreakingObjective(std::int64_t broken_call) : broken_call_(broken_call) {}
  Loss loss(const Model& model, const PackedBatch& batch, Recompute recompute) override;

 private:
  std::int64_t broken_call_, calls_ = 0;
};

// 24 steps that log, evaluate and save at different intervals.
LoopConfig short_loop();

// Everything that one run needs; a second one in the same folder continues it.
struct TinyRun {
  explicit TinyRun(const fs::path& folder, LoopConfig loop = short_loop());
  LoopResult train() { return molt::train(config, parts); }

  LoopConfig config;
  std::unique_ptr<Model> model = tiny_model();
  NextToken next_token;
  CountingSource source;
  HeldOutLoss held_out;
  LoopParts parts;
};

// The lines of <run>/metrics.jsonl or events.jsonl.
std::vector<Json> lines_of(const fs::path& path);
// Metrics without the figures that depend on the clock and the machine, one text a line.
std::vector<std::string> timeless_metrics(const fs::path& run);

// Files and folders in a folder.
std::set<std::string> names_in(const fs::path& folder);

// An empty folder and, because the models are tiny, one thread.
class RunFolder : public FolderTest {
 protected:
  RunFolder();
  ~RunFolder() override;

 private:
  int threads_;
};

}  // namespace molt::test
