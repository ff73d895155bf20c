#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"

namespace molt {

void ScheduleConfig::visit(ConfigVisitor& v) {
  v.choice("type", type, {"constant", "linear", "cosine", "warmup_stable_decay"}, "Shape of the learning rate after the warm-up");
  v.field("warmup", warmup, "Steps of linear rise from 0");
  v.field("final_fraction", final_fraction, "Share of the peak learning rate left at the last step; constant has no use for it");
  v.field("decay_fraction", decay_fraction, "Share of the steps, at the end, in which warmup_stable_decay falls linearly");
  if (!v.reading()) return;
  require(decay_fraction > 0 && decay_fraction <= 1, v.place(), ": decay_fraction: found ", decay_fraction,
          ", expected a number above 0 and up to 1");
  require(warmup >= 0, v.place(), ": warmup: found ", warmup, ", expected a number of steps from 0 up");
  require(final_fraction >= 0 && final_fraction <= 1, v.place(), ": final_fraction: found ", final_fraction,
          ", expected a number from 0 to 1");
}

double schedule_factor(const ScheduleConfig& config, std::int64_t step, std::int64_t steps) {
  if (step < config.warmup) return static_cast<double>(step + 1) / static_cast<double>(config.warmup);
  if (config.type == "constant") return 1.0;
  std::int64_t begin = config.warmup;  // steps before the rate falls
  if (config.type == "warmup_stable_decay") {
    const auto decay = static_cast<std::int64_t>(std::llround(config.decay_fraction * static_cast<double>(steps)));
    begin = std::max(begin, steps - std::max<std::int64_t>(decay, 1));
  }
  const double left = static_cast<double>(std::max<std::int64_t>(steps - begin, 1));
  const double progress = std::clamp(static_cast<double>(step + 1 - begin) / left, 0.0, 1.0);
  const double shape = config.type == "cosine" ? 0.5 * (1.0 + std::cos(std::numbers::pi * progress)) : 1.0 - progress;
  return config.final_fraction + (1.0 - config.final_fraction) * shape;
}

}  // namespace molt
