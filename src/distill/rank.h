// Which attention layers can be spared: a figure for each, the least important layer first.
//
//   loo   leave one out: the layer (or its mixer) is left away, and the score is how much the loss rises or a task's accuracy
//         falls. Cheap and static; fails once layers matter together.
//   mmr   MIL-Mamba-Replacement: a Mamba mixer, initialised from the teacher's attention, takes the layer's place and trains for
//         some steps; the score is the divergence from the teacher on held-out batches that is left. Every candidate sees the
//         same batches in the same order.
//   kl    KL-guided (after Li et al., arXiv 2512.20569): a student is Mamba in every candidate layer and trains for student_steps
//         steps, after match_steps in which each new mixer is drawn to the teacher's attention; then each layer is restored to
//         the teacher's attention in turn, and the score is the divergence from the teacher on held-out batches that it saves.
//         With `steps`, the new mixers that are left train on before that is measured, and so do those of the student with no
//         layer restored, which is the base. With `greedy`, the layer that saves most stays restored and the others are tried
//         again beside it, round by round; what is restored last is the least important.
//   random, uniform   baselines: in an order drawn by the seed; evenly spaced.
//         Uniform with a `count` n takes the middles of n equal parts of the candidates first. What follows, and all of it with
//         count 0, is the candidates at 1/2, 1/4, 3/4, 1/8, 5/8, … of their number (van der Corput's sequence, the integers'
//         binary digits reversed behind the point): after any number of them, no gap is more than twice as wide as another, but
//         for the rounding to whole layers.
//   list  an order that is known, such as a published one.
//
// A ranking's file, written after each layer, so that a stopped ranking goes on where it was:
//   {"method", "configuration" (YAML), "model", "teacher" (fingerprints), "baseline": {"score", …}, "complete",
//    "layers": [{"layer", "score", "standard_error", …}] in the order of their numbers, "ranking": [layers, least important
//    first]}
// loo adds "loss" and "baseline.loss" (or "accuracy"); mmr adds "initial" (before the first step), "curve": [[step, loss]…],
// "trained_parameters". kl adds "kl", the divergence that is left, to the baseline (nothing restored) and to each layer, with
// `steps` mmr's three, and "baseline.student", the folder of the student's run beside the file (that of matching adds "_match");
// greedy adds each layer's "round" and "rounds": [{"candidates": [layers], "picked"}]. Scores of random, uniform and list are
// places in their order.
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
#include "train/config.h"
#include "train/optimizer.h"
#include "train/schedule.h"

namespace molt {

struct RankConfig {
  std::string method = "loo";
  DataConfig data;
  std::int64_t held_out_tokens = 16384;  // the data's first tokens, on which scores are measured
  std::int64_t micro_batch_tokens = 4096;
  std::vector<std::int64_t> layers;  // candidates (of list their order); empty: every attention layer
  std::int64_t seed = 0;
  // loo
  std::string scope = "layer";  // layer: hidden states pass all of it unchanged (as published); mixer: the MLP stays
  std::string metric = "loss";  // loss, task
  TaskConfig task;
  // mmr and kl
  TargetMixerConfig mixer = TargetMixerConfig::of("mamba");
  DivergenceConfig divergence;  // that trains and that is measured
  std::int64_t steps = 100, micro_batches = 1;
  OptimizerConfig optimizer;
  ScheduleConfig schedule{.type = "constant", .warmup = 10, .final_fraction = 1.0};
  std::vector<std::string> trainable = {"layers.{layer}.mixers.*"};  // {layer}: the candidate's number

  // kl
  std::int64_t match_steps = 0, student_steps = 200;
  bool greedy = false;
  // uniform
  std::int64_t count = 0;

  void visit(ConfigVisitor& visitor);           // method and settings
  void visit_settings(ConfigVisitor& visitor);  // what the method reads

  bool distils() const { return method == "mmr" || method == "kl"; }
  bool measures() const { return method == "loo" || distils(); }

 private:
  void visit_training(ConfigVisitor& visitor);
};

const std::vector<std::string>& rank_methods();

struct LayerFigure {
  std::int64_t layer = 0;
  double score = 0;           // higher: harder to spare
  double standard_error = 0;  // over held-out sequences (paired with the baseline's for loo and kl) or task items
  std::int64_t round = 0;     // of a greedy ranking: the one in which the layer was picked
};

struct Ranking {
  std::vector<LayerFigure> layers;  // by number
  std::vector<std::int64_t> order;  // least important first: the last rounds, the lowest scores, the later of equal layers
};

// What is ranked. Only mmr and kl need the teacher; the model keeps its weights.
struct RankInputs {
  Model& model;
  std::shared_ptr<const Model> teacher;
  std::shared_ptr<const Tokenizer> tokenizer;
  std::string place;   // of the configuration, starts errors
  fs::path like = {};  // Hugging Face folder whose tokenizer and settings the export of kl's student carries; may be empty
};

// Ranks the candidates into `file`, continuing what it holds. UserError when it holds a ranking of another configuration, model
// or teacher (naming the key); Interrupted after the last finished layer is saved.
Ranking rank_layers(const RankConfig& config, const RankInputs& inputs, const fs::path& file);

// A finished ranking. UserError for a file that is none.
Ranking read_ranking(const fs::path& file);

// 16 hexadecimal digits of a model's configuration and weights (4096 values of each tensor, evenly spaced).
std::string model_fingerprint(const Model& model);

}  // namespace molt
