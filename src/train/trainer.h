// The state of a run and what is done with it: loop.cc holds the steps, trainer_state.cc how a run starts, is saved and goes on.
#pragma once
#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/folder_lock.h"
#include "train/average.h"
#include "train/checkpoint_writer.h"
#include "train/guard.h"
#include "train/loop.h"
#include "train/metrics.h"
#include "train/optimizer.h"
#include "train/resolved_config.h"

namespace molt::train_loop {

// A step whose figures are still on the device: reading them would wait for it.
struct PendingStep {
  std::int64_t step = 0, tokens = 0;
  std::int64_t total_tokens = 0;  // of the run, this step's included
  double weight = 0, flops = 0;
  at::Tensor loss, gradient_norm;                 // fp64 and fp32 scalars
  at::Tensor limit;                               // of gradient_norm, fp32 scalar; undefined: none
  std::map<std::string, at::Tensor> sums;         // fp64 scalars
  std::map<std::string, at::Tensor> layer_norms;  // fp64 scalars; only where they are to be written
  std::vector<PackedBatch> batches;               // on the CPU, kept for the case that the step is refused
};

// Whether and why a step was left out.
struct Refusal {
  std::string event;  // "nonfinite", "spike"; empty: the step is good
  double loss, gradient_norm, limit;
};

class Trainer {
 public:
  Trainer(const LoopConfig& config, const LoopParts& parts);
  LoopResult run();

 private:
  void start();
  // Continues from the newest checkpoint that can be read, if there is one. Returns what has changed since the run was left.
  std::vector<ChangedKey> resume();
  std::optional<Checkpoint> newest_checkpoint() const;
  // The same with the data's fingerprint among the keys.
  std::vector<ChangedKey> changes_since(const Checkpoint& checkpoint) const;
  void restore(const Checkpoint& checkpoint);
  void step();
  void collect();
  void refuse(const PendingStep& step, const Refusal& refusal);
  void write_interval();
  // What the progress line says beside the steps.
  std::string note() const;
  void save();
  Checkpoint checkpoint_now() const;
  // Takes note of a checkpoint that has been written; waits for the one under way when `wait`.
  void note_checkpoint(bool wait);
  void evaluate();
  void evaluate_or_save();

  bool due(std::int64_t every) const { return every > 0 && step_ % every == 0; }
  bool last() const { return horizon_.reached(step_, tokens_); }
  bool evaluation_due() const { return !parts_.evaluators.empty() && (last() || due(config_.evaluate_every)); }
  std::map<std::string, std::string> versions() const;

  const LoopConfig& config_;
  const LoopParts& parts_;
  const FolderLock lock_;
  Optimizer optimizer_;
  AveragedWeights averages_;
  SpikeLimit spike_limit_;
  Horizon horizon_;
  CheckpointWriter writer_;
  std::unique_ptr<RunLog> log_;
  std::vector<PendingStep> pending_;
  IntervalSums interval_;
  Figures layer_norms_;  // of the last step that was collected
  std::int64_t skipped_in_a_row_ = 0;
  std::int64_t step_ = 0, tokens_ = 0;  // done
  double learning_rate_ = 0;            // of the last step
  double seconds_ = 0;
  double last_loss_ = 0;      // of the last good step that was collected
  double interval_loss_ = 0;  // of the last line of metrics
  double mfu_ = 0;            // of the same line; 0: not known
  double peak_flops_ = 0;     // of the device; 0: not known
  fs::path checkpoint_;
  std::int64_t saved_step_ = 0;  // of checkpoint_
  double stalled_ = 0;           // seconds in which no step was taken because of the checkpoint under way
};

}  // namespace molt::train_loop
