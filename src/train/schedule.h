// The learning rate as a function of the step.
#pragma once
#include <cstdint>
#include <string>

#include "base/config.h"

namespace molt {

struct ScheduleConfig {
  std::string type = "cosine";  // constant, linear, cosine
  std::int64_t warmup = 100;    // steps of linear rise from 0
  double final_fraction = 0.1;  // of the peak, at the last step
  void visit(ConfigVisitor& visitor);
};

// Factor on the peak learning rate at `step` (from 0) of `steps`.
double schedule_factor(const ScheduleConfig& config, std::int64_t step, std::int64_t steps);

}  // namespace molt
