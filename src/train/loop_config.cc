#include "base/error.h"
#include "train/loop.h"

namespace molt {

void LoopConfig::visit(ConfigVisitor& v) {
  v.field("steps", steps, "Optimizer steps");
  v.field("tokens", tokens, "The run ends once so many have been trained on, whatever `steps` says; 0: it does not");
  v.field("flat", flat, "When the loss has stopped falling, the run ends before that");
  v.field("micro_batch_tokens", micro_batch_tokens, "Tokens of one forward and backward pass");
  v.field("micro_batches", micro_batches, "Passes whose gradients are added up for one step");
  v.field("optimizer", optimizer, "AdamW, or Muon with it");
  v.field("schedule", schedule, "The learning rate over the steps");
  v.field("guard", guard, "What happens at steps whose gradients cannot be trusted");
  v.field("average_decay", average_decay, "Of an average of the weights that is saved beside them; 0: none is kept");
  v.choice("recompute", recompute, {"none", "mixer", "block"}, "What backward computes again instead of keeping it in memory");
  v.field("deterministic", deterministic, "On a GPU, two runs with one seed are equal bit for bit, at some cost in speed");
  v.field("trainable", trainable, "Glob patterns of parameters that train; the last match decides, a leading ! excludes");
  v.field("evaluate_every", evaluate_every, "Steps between evaluations; 0: only at the end");
  v.field("checkpoint_every", checkpoint_every, "Steps between checkpoints");
  v.field("keep_checkpoints", keep_checkpoints, "How many of the newest checkpoints stay");
  v.field("keep_every", keep_every, "Checkpoints at multiples of this many steps stay for good; 0: none");
  v.field("save_in_background", save_in_background,
          "Go on while a checkpoint is written, from a copy of the state in host memory");
  v.field("log_every", log_every, "Steps between lines of metrics");
  v.field("log_layer_norms", log_layer_norms, "Write the gradient norm of each layer with them");
  v.field("peak_tflops", peak_tflops,
          "TFLOP/s that the device could do, for the share that training reaches (mfu); by default known by name for A100, H100 "
          "and H200 in bfloat16, measured on a CPU; 0: no share is written");
  v.field("tensorboard", tensorboard, "Write the same figures for TensorBoard, into the run's folder tensorboard");
  if (!v.reading()) return;
  const auto at_least = [&](const char* key, std::int64_t value, std::int64_t low) {
    require(value >= low, v.place(), ": ", key, ": found ", value, ", expected a number from ", low, " up");
  };
  at_least("steps", steps, 1);
  at_least("tokens", tokens, 0);
  at_least("micro_batch_tokens", micro_batch_tokens, 2);
  at_least("micro_batches", micro_batches, 1);
  at_least("evaluate_every", evaluate_every, 0);
  at_least("checkpoint_every", checkpoint_every, 1);
  at_least("keep_checkpoints", keep_checkpoints, 1);
  at_least("keep_every", keep_every, 0);
  at_least("log_every", log_every, 1);
  require(peak_tflops.value_or(0) >= 0, v.place(), ": peak_tflops: found ", peak_tflops.value_or(0),
          ", expected a number from 0 up");
  require(average_decay >= 0 && average_decay < 1, v.place(), ": average_decay: found ", average_decay,
          ", expected a number from 0 to below 1");
}

Recompute recompute_of(const std::string& word) {
  if (word == "mixer") return Recompute::mixer;
  return word == "block" ? Recompute::block : Recompute::none;
}

}  // namespace molt
