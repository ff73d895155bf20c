#include "train/horizon.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "train/loop.h"

namespace molt {

void FlatConfig::visit(ConfigVisitor& v) {
  v.field("window", window, "Steps whose mean loss is compared with that of the windows before; 0: the rule does not apply");
  v.field("improvement", improvement, "A window is flat when it is not lower than the lowest before by this fraction");
  v.field("patience", patience, "Flat windows in a row that end the run");
  if (!v.reading()) return;
  require(window >= 0, v.place(), ": window: found ", window, ", expected a number of steps from 0 up");
  require(improvement >= 0 && improvement < 1, v.place(), ": improvement: found ", improvement,
          ", expected a number from 0 to below 1");
  require(patience >= 1, v.place(), ": patience: found ", patience, ", expected a number from 1 up");
}

namespace horizons {

double step_tokens(const LoopConfig& config) {
  return static_cast<double>(config.micro_batches) * static_cast<double>(config.micro_batch_tokens);
}

}  // namespace horizons

Horizon::Horizon(const LoopConfig& config)
    : config_(config),
      end_(config.tokens > 0 ? static_cast<double>(config.tokens) / horizons::step_tokens(config)
                             : static_cast<double>(config.steps)) {}

double Horizon::position(std::int64_t step, std::int64_t tokens) const {
  return config_.tokens > 0 ? static_cast<double>(tokens) / horizons::step_tokens(config_) : static_cast<double>(step);
}

double Horizon::factor(std::int64_t step, std::int64_t tokens) const {
  return schedule_factor(config_.schedule, static_cast<std::int64_t>(position(step, tokens)),
                         static_cast<std::int64_t>(std::ceil(end_)));
}

const char* Horizon::unit() const {
  return config_.tokens > 0 ? "tokens" : "steps";
}

std::int64_t Horizon::total() const {
  return config_.tokens > 0 ? config_.tokens : config_.steps;
}

bool Horizon::window_ends(std::int64_t step) const {
  return config_.flat.window > 0 && step % config_.flat.window == 0;
}

bool Horizon::observe(std::int64_t step, std::int64_t tokens, double loss, double weight) {
  if (config_.flat.window == 0 || flat_) return false;
  loss_ += loss;
  weight_ += weight;
  if (!window_ends(step) || weight_ == 0) return false;
  last_mean_ = loss_ / weight_;
  loss_ = weight_ = 0;
  const bool window_is_flat = lowest_ && last_mean_ > (1 - config_.flat.improvement) * *lowest_;
  lowest_ = lowest_ ? std::min(*lowest_, last_mean_) : last_mean_;
  flat_windows_ = window_is_flat ? flat_windows_ + 1 : 0;
  flat_ = flat_windows_ >= config_.flat.patience;
  if (!flat_) return false;
  const double here = position(step, tokens), falls = config_.schedule.decay_fraction;
  const bool decays = config_.schedule.type == "warmup_stable_decay";
  if (!decays) end_ = std::min(end_, here);
  if (decays && falls < 1) end_ = std::min(end_, std::round(here / (1 - falls)));
  return true;
}

Json Horizon::state() const {
  Json state = {{"end", end_}, {"flat", flat_}, {"flat_windows", flat_windows_}, {"loss", loss_}, {"weight", weight_}};
  if (lowest_) state["lowest"] = *lowest_;
  return state;
}

void Horizon::restore(const Json& state, const std::string& place) {
  flat_ = get<bool>(state, "flat", place) && config_.flat.window > 0;
  if (flat_) end_ = get<double>(state, "end", place);  // otherwise it is where the configuration says
  flat_windows_ = get<std::int64_t>(state, "flat_windows", place);
  loss_ = get<double>(state, "loss", place);
  weight_ = get<double>(state, "weight", place);
  if (state.contains("lowest")) lowest_ = get<double>(state, "lowest", place);
}

}  // namespace molt
