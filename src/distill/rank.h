// Which attention layers can be spared: a figure for each, the least important layer first.
//
//   loo   leave one out: the layer (or its mixer) is left away, and the score is how much the loss rises or a task's accuracy
//         falls. Cheap and static; fails once layers matter together.
//   mmr   MIL-Mamba-Replacement: a Mamba mixer, initialised from the teacher's attention, takes the layer's place and trains for
//         some steps; the score is the divergence from the teacher on held-out batches that is left. Every candidate sees the
//         same batches in the same order.
//
// A ranking's file, written after each layer, so that a stopped ranking goes on where it was:
//   {"method", "configuration" (YAML), "model", "teacher" (fingerprints), "baseline": {"score", …}, "complete",
//    "layers": [{"layer", "score", "standard_error", …}] in the order of their numbers, "ranking": [layers, least important
//    first]}
// loo adds "loss" and "baseline.loss" (or "accuracy"); mmr adds "initial" (before the first step), "curve": [[step, loss]…],
// "trained_parameters".
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/config.h"
#include "base/files.h"
#include "base/json.h"
#include "data/packed_source.h"
#include "distill/convert.h"
#include "evaluate/task.h"
#include "text/tokenizer.h"
#include "train/optimizer.h"
#include "train/schedule.h"

namespace molt {

struct RankConfig {
  std::string method = "loo";
  DataConfig data;
  std::int64_t held_out_tokens = 16384;  // the data's first tokens, on which scores are measured
  std::int64_t micro_batch_tokens = 4096;
  std::vector<std::int64_t> layers;  // candidates; empty: every attention layer
  std::int64_t seed = 0;
  // loo
  std::string scope = "layer";  // layer: hidden states pass all of it unchanged (as published); mixer: the MLP stays
  std::string metric = "loss";  // loss, task
  TaskConfig task;
  // mmr
  TargetMixerConfig mixer = TargetMixerConfig::of("mamba");
  std::string distillation_loss_implementation = "reverse_kl";
  std::int64_t steps = 100, micro_batches = 1;
  OptimizerConfig optimizer;
  ScheduleConfig schedule{.type = "constant", .warmup = 10, .final_fraction = 1.0};
  std::vector<std::string> trainable = {"layers.{layer}.mixers.*"};  // {layer}: the candidate's number

  void visit(ConfigVisitor& visitor);           // method and settings
  void visit_settings(ConfigVisitor& visitor);  // what the method reads
};

struct LayerFigure {
  std::int64_t layer = 0;
  double score = 0;           // higher: harder to spare
  double standard_error = 0;  // over held-out sequences (paired with the baseline's for loo) or task items
};

struct Ranking {
  std::vector<LayerFigure> layers;  // by number
  std::vector<std::int64_t> order;  // least important first; of equal ones the later layer first
};

// What is ranked. The teacher is null for loo; the model keeps its weights.
struct RankInputs {
  Model& model;
  std::shared_ptr<const Model> teacher;
  std::shared_ptr<const Tokenizer> tokenizer;
  std::string place;  // of the configuration, starts errors
};

// Ranks the candidates into `file`, continuing what it holds. UserError when it holds a ranking of another configuration, model
// or teacher (naming the key); Interrupted after the last finished layer is saved.
Ranking rank_layers(const RankConfig& config, const RankInputs& inputs, const fs::path& file);

// A finished ranking. UserError for a file that is none.
Ranking read_ranking(const fs::path& file);

// 16 hexadecimal digits of a model's configuration and weights (4096 values of each tensor, evenly spaced).
std::string model_fingerprint(const Model& model);

}  // namespace molt
