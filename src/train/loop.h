// The training loop: micro-batches, optimizer, schedule, evaluation, metrics, checkpoints. It can be stopped at any moment and
// continues where it was; on CPU with the same number of threads a resumed run repeats the uninterrupted one bit for bit.
//
// A run folder:  config.yaml (resolved)  metrics.jsonl  events.jsonl  checkpoints/<step, 8 digits>/{export/, state.json,
// optimizer.safetensors, checksums.json}. export/ is a Hugging Face folder; the newest checkpoint that can be read is where a run
// continues. Checkpoints are written in the background, from a copy of the state in host memory.
// Formats: metrics.h, checkpoint.h.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/config.h"
#include "base/files.h"
#include "data/batch_source.h"
#include "model/model.h"
#include "train/guard.h"
#include "train/horizon.h"
#include "train/objective.h"
#include "train/optimizer.h"
#include "train/resolved_config.h"
#include "train/schedule.h"

namespace molt {

struct LoopConfig {
  std::int64_t steps = 1000;
  std::int64_t tokens = 0;  // ends the run instead of steps (horizon.h); 0: steps do
  FlatConfig flat;
  std::int64_t micro_batch_tokens = 4096;  // tokens of one forward and backward pass
  std::int64_t micro_batches = 1;          // accumulated into one step
  OptimizerConfig optimizer;
  ScheduleConfig schedule;
  GuardConfig guard;
  double average_decay = 0;  // of the averaged weights (average.h); 0: none are kept
  std::string recompute = "none";
  bool deterministic = false;
  std::vector<std::string> trainable = {"*"};  // globs over canonical names (of adapters alone where there are any); "!" excludes
  std::int64_t evaluate_every = 0;             // steps; 0: only at the end
  std::int64_t checkpoint_every = 500;         // steps
  std::int64_t keep_checkpoints = 2;           // newest ones kept; older ones are removed
  std::int64_t keep_every = 0;                 // steps; checkpoints at multiples of it stay for good; 0: none
  bool save_in_background = true;              // costs host memory for a copy of weights and optimizer state
  std::int64_t log_every = 10;                 // steps
  bool log_layer_norms = false;
  std::optional<double> peak_tflops;  // of the device, for mfu in the metrics; 0: none; absent: peak_flops.h
  bool tensorboard = false;
  void visit(ConfigVisitor& visitor);
};

// Of LoopConfig's word.
Recompute recompute_of(const std::string& word);

// The optimizer of a model's trainable tensors, which are moved into its flat buffers. UserError for patterns that match none.
Optimizer make_optimizer(const LoopConfig& config, Model& model);

struct LoopParts {
  Model& model;
  Objective& objective;
  BatchSource& source;
  std::vector<Evaluator*> evaluators;
  fs::path run;                                               // run folder; created if absent, continued if it holds a checkpoint
  std::function<void(Model&, const fs::path&)> export_model;  // writes the Hugging Face folder of a checkpoint
  std::string resolved_config;  // YAML kept as run/config.yaml; a run continued with another one is a UserError naming the keys
  std::uint64_t seed = 0;       // of LibTorch's generators, for components that draw from them
  std::map<std::string, std::string> versions = {};     // of the program, kept in events and checkpoints beside LibTorch's
  std::shared_ptr<const OrderedJson> memory_plan = {};  // kept in events; null: none
  std::string data_fingerprint = {};  // of what the batches are made from; a run continued with another one is a UserError
  // By folder, of models that no checkpoint puts back, such as a teacher; as much of a UserError.
  std::map<std::string, std::string> model_fingerprints = {};
  Changes changes = Changes::refuse;  // accepted ones are kept in the event "resume"
};

struct LoopResult {
  std::int64_t step = 0;
  double loss = 0;                           // mean over the last log interval
  std::map<std::string, double> evaluation;  // the last one: "<evaluator>.<figure>"
  fs::path checkpoint;                       // the last one's folder
};

// Runs to where the horizon is (horizon.h). The model's trainable tensors are moved into flat buffers (flatten_trainable); frozen
// ones keep their storage, so what they share with a teacher stays shared. When a run is continued, the model must be what it was
// at the start (from the same files and seeds): the checkpoint puts the trained weights back. Throws Interrupted after saving a
// checkpoint when a signal came, UserError when the guard stops the run (the batch is saved in the run folder) or nothing can be
// written.
LoopResult train(const LoopConfig& config, const LoopParts& parts);

}  // namespace molt
