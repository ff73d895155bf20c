// Where a run ends, and how far along it is.
//
// A run of `steps` ends after so many; one of `tokens` after the step that reaches them, and its schedule goes by tokens: it is
// as far along as a run of full micro-batches would be.
//
// When the loss is flat: the steps are divided into windows of `flat.window`, each with the mean loss of its steps (over loss
// tokens; steps that were left out do not count). A window is flat when its mean is above (1 - flat.improvement) times the lowest
// mean of any window before it. After `flat.patience` flat windows in a row the run ends; with a warmup_stable_decay schedule its
// learning rate begins to fall there instead, over as many steps as make decay_fraction of the whole, and the run ends behind
// them. In any case it ends where it would have ended without the rule. What is decided depends on the losses alone, so that a
// run that was stopped decides the same.
#pragma once
#include <cstdint>
#include <optional>

#include "base/config.h"
#include "base/json.h"

namespace molt {

struct LoopConfig;

struct FlatConfig {
  std::int64_t window = 0;  // steps; 0: the rule does not apply
  double improvement = 0.01;
  std::int64_t patience = 2;  // windows
  void visit(ConfigVisitor& visitor);
};

class Horizon {
 public:
  explicit Horizon(const LoopConfig& config);

  // After so many steps and tokens.
  bool reached(std::int64_t step, std::int64_t tokens) const { return position(step, tokens) >= end_; }
  // The schedule's share of the peak learning rate for the step that follows them.
  double factor(std::int64_t step, std::int64_t tokens) const;
  // For people: what is counted, and how far it goes.
  const char* unit() const;
  std::int64_t total() const;

  // Whether the losses up to this step must be known before the next one.
  bool window_ends(std::int64_t step) const;
  // A step's loss, summed over loss tokens, with their weight (0 for a step that was left out); every step in order, with what
  // was done after it. Returns whether the loss has been found flat by it.
  bool observe(std::int64_t step, std::int64_t tokens, double loss, double weight);
  double window_loss() const { return last_mean_; }  // of the last whole window

  Json state() const;
  void restore(const Json& state, const std::string& place);

 private:
  double position(std::int64_t step, std::int64_t tokens) const;  // in steps, of full micro-batches where tokens are counted

  const LoopConfig& config_;
  double end_;  // a position
  bool flat_ = false;
  double loss_ = 0, weight_ = 0;  // of the window so far
  double last_mean_ = 0;
  std::optional<double> lowest_;  // mean of a window
  std::int64_t flat_windows_ = 0;
};

}  // namespace molt
