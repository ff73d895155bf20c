#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"

namespace molt {

void ScheduleConfig::visit(ConfigVisitor& v) {
  v.choice("type", type, {"constant", "linear", "cosine"}, "Shape of the learning rate after the warm-up");
  v.field("warmup", warmup, "Steps of linear rise from 0");
  v.field("final_fraction", final_fraction, "Share of the peak learning rate left at the last step; constant has no use for it");
  if (!v.reading()) return;
  require(warmup >= 0, v.place(), ": warmup: found ", warmup, ", expected a number of steps from 0 up");
  require(final_fraction >= 0 && final_fraction <= 1, v.place(), ": final_fraction: found ", final_fraction,
          ", expected a number from 0 to 1");
}

double schedule_factor(const ScheduleConfig& config, std::int64_t step, std::int64_t steps) {
  if (step < config.warmup) return static_cast<double>(step + 1) / static_cast<double>(config.warmup);
  if (config.type == "constant") return 1.0;
  const double left = static_cast<double>(std::max<std::int64_t>(steps - config.warmup, 1));
  const double progress = std::min(static_cast<double>(step + 1 - config.warmup) / left, 1.0);
  const double shape = config.type == "linear" ? 1.0 - progress : 0.5 * (1.0 + std::cos(std::numbers::pi * progress));
  return config.final_fraction + (1.0 - config.final_fraction) * shape;
}

}  // namespace molt
