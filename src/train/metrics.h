// What a run leaves to read while it goes on: metrics.jsonl (figures by step) and events.jsonl (what happened when).
//
// metrics.jsonl, one object a line, in the order of "step":
//   {"step", "tokens", "fill", "loss", <the objective's sums>…, "gradient_norm", "learning_rate", "tokens_per_second",
//    "flops_per_second", "mfu", "memory", "seconds",  means over the steps since the line before; tokens and seconds since the
//                                                     start; mfu: flops_per_second over the device's peak, where that is known
//    "skipped", "gradient_norms"}                     steps left out, where there were any; of each layer at this step, by choice
//   {"step", "evaluation": {"<evaluator>.<figure>": …}}
// A run that is continued cuts what lies beyond its checkpoint, so the file reads as one uninterrupted run. A line that is
// damaged is named in a warning and stays where it is.
//
// events.jsonl: {"time" (UTC), "event", …} for start, resume, checkpoint, evaluation, interrupted, nonfinite, spike, flat, end;
// never cut. "stalled" of a checkpoint: the seconds for which steps stood still, to copy the state or to wait for it to be
// written.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>

#include "base/files.h"
#include "base/json.h"
#include "train/tensorboard.h"

namespace molt {

// Sums over the steps of a log interval. They are saved with a checkpoint, so that the line of an interval in which a run was
// stopped is the one that it would have written anyway.
struct IntervalSums {
  std::int64_t steps = 0, tokens = 0;
  std::int64_t skipped = 0;     // of the steps; they count in tokens, flops and seconds alone
  double loss = 0, weight = 0;  // sums over loss tokens
  double gradient_norm = 0;     // summed over steps
  double flops = 0, seconds = 0;
  std::map<std::string, double> sums;  // the objective's, over loss tokens

  double mean_loss() const { return weight > 0 ? loss / weight : 0; }
  Json to_json() const;
  static IntervalSums from_json(const Json& value, const std::string& place);
};

using Figures = std::map<std::string, double>;

class RunLog {
 public:
  // Opens or creates both files and drops metrics of steps after `step`. With `tensorboard`, the same figures go into event files
  // under <run>/tensorboard.
  RunLog(const fs::path& run, std::int64_t step, bool tensorboard = false);

  struct Totals {
    std::int64_t step, tokens;  // of the run so far
    double seconds, learning_rate;
    std::int64_t memory;       // bytes
    std::int64_t step_tokens;  // that fit into a step
    double peak_flops;         // a second; 0: not known
  };
  // Returns mfu, 0 where it is not known.
  double interval(const IntervalSums& sums, const Totals& totals, const Figures& layer_norms);
  void evaluation(std::int64_t step, const Figures& figures);
  void event(const std::string& name, const OrderedJson& details);

  // The last evaluation in the file and its step (-1: none).
  std::int64_t evaluated_step() const { return evaluated_step_; }
  const Figures& last_evaluation() const { return last_evaluation_; }

 private:
  void cut(const fs::path& path, std::int64_t step);
  // Keeps a line's evaluation as the last one so far; false for a line of a later step than `last_step`. UserError for a damaged
  // one.
  bool note(std::string_view text, std::int64_t last_step, const std::string& place);
  void write(const OrderedJson& line, std::int64_t step, const std::string& prefix);

  std::unique_ptr<LineWriter> metrics_, events_;
  std::unique_ptr<TensorBoardFile> tensorboard_;
  std::int64_t evaluated_step_ = -1;
  Figures last_evaluation_;
};

// Memory in use: resident bytes of the process on the CPU, the most that was ever allocated on a GPU.
std::int64_t memory_in_use(at::Device device);

}  // namespace molt
