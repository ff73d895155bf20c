// What a report shows, read from the files that the other commands leave. Any of these is a RUN:
//   a recipe's folder      recipe.json and what it names (src/distill/recipe.h): checkpoints, losses, rankings, scores
//   a training run         metrics.jsonl, events.jsonl (src/train/metrics.h), the newest export
//   an evaluation folder   <model>/<task>/ with evaluation.json, score.json, samples.jsonl (src/evaluate/evaluate.h)
//   a throughput file      what `molt bench --json` prints
//   a ranking file         what `molt rank` writes, its student's run with it
// Results of one model are joined by its path. What is not there yet is left out, and a torn last line of a growing file is
// skipped; a broken file is a UserError that names it and the place.
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/files.h"

namespace molt::report {

struct Score {
  double accuracy = 0, standard_error = 0;  // fractions of 1
  std::int64_t items = 0;
};

// Of a text; not an accuracy, so it stands in the table of checkpoints alone.
struct Perplexity {
  double value = 0, standard_error = 0;
};

// Tokens/s of all sequences together: median and extremes over the runs of one benchmark.
struct Throughput {
  bool prefill = false;
  std::int64_t batch = 1, context = 0;
  double median = 0, lowest = 0, highest = 0;
  double ratio = 1;       // to the first model of the same benchmark, measured in turns with it
  std::int64_t file = 0;  // ratios compare within one file only
};

struct Sample {
  std::string task, prompt, expected, completion;
  bool correct = false;
};

struct Checkpoint {
  std::string name;  // unique in the report
  std::string from;  // name of the checkpoint that it was made from; may be empty
  std::string status = "finished";
  std::vector<fs::path> places;         // folders that mean this model
  std::vector<std::string> layout;      // letters of hybrid_block_layout: t attention, swa sliding window, m2 Mamba, i identity
  std::vector<std::int64_t> converted;  // layers that became something else in its stage
  std::optional<double> tokens;         // trained on since the teacher
  std::optional<double> loss;           // at the end of its training
  std::string objective;                // the loss's: "reverse_kl", "cross_entropy", …
  std::map<std::string, Score> scores;  // by task
  std::map<std::string, Perplexity> perplexities;  // by task
  std::vector<Throughput> throughput;
  std::optional<Sample> sample;

  std::int64_t mamba_layers() const;
};

struct CurvePoint {
  double tokens = 0;  // since the teacher
  double loss = 0;
};

// The losses of one training run.
struct Curve {
  std::string name;
  std::string objective;
  std::vector<CurvePoint> training;
  std::map<std::string, std::vector<CurvePoint>> held_out;  // by evaluator
};

struct LayerFigure {
  std::int64_t layer = 0;
  double score = 0, standard_error = 0;
  std::int64_t round = 0;  // of a greedy ranking: the one in which the layer was picked
};

// The losses of one candidate while it trained.
struct CandidateCurve {
  std::int64_t layer = -1;                        // -1: kl's student with no layer restored
  std::vector<std::pair<double, double>> points;  // step, loss
};

struct LayerRanking {
  std::string name;     // of its stage or file
  std::string method;   // "loo", "mmr", "kl", …
  std::string measure;  // what a score is: "rise of the loss (nats per token)"; empty for an order that nothing was measured for
  std::string divergence;  // of mmr and kl: "reverse KL"
  bool complete = false;
  std::optional<double> baseline;   // the same measure of the model as it was
  std::vector<LayerFigure> layers;  // least important first
  std::vector<CandidateCurve> curves;
  std::vector<std::int64_t> chosen;  // those that were converted then
};

struct Collection {
  std::string title;
  std::vector<Checkpoint> checkpoints;  // in the order of the recipe, the teacher first
  std::int64_t reference = -1;          // what others are compared with: the teacher, or else the first model; -1: there is none
  std::vector<Curve> curves;
  std::vector<LayerRanking> rankings;

  const Checkpoint* teacher() const { return reference < 0 ? nullptr : &checkpoints[static_cast<std::size_t>(reference)]; }
  std::vector<std::string> tasks() const;  // every task that has a score, by name
  std::vector<std::string> texts() const;  // every one that has a perplexity
};

// UserError for a path that is none of the five kinds.
Collection collect(const std::vector<fs::path>& runs);

}  // namespace molt::report
