// The learning rate as a function of the step.
#pragma once
#include <cstdint>
#include <string>

#include "base/config.h"

namespace molt {

struct ScheduleConfig {
  std::string type = "cosine";  // constant, linear, cosine, warmup_stable_decay
  std::int64_t warmup = 100;    // steps of linear rise from 0; the first step already has 1/warmup of the peak
  double final_fraction = 0.1;  // of the peak, at the last step
  double decay_fraction = 0.2;  // share of the steps in which warmup_stable_decay falls, linearly, at the end
  void visit(ConfigVisitor& visitor);
};

// Factor on the peak learning rate at `step` (from 0) of `steps`: 1 at step warmup - 1, final_fraction at step steps - 1.
double schedule_factor(const ScheduleConfig& config, std::int64_t step, std::int64_t steps);

}  // namespace molt
