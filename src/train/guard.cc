#include "train/guard.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include <limits>

#include "base/error.h"

namespace molt {

void GuardConfig::visit(ConfigVisitor& v) {
  v.choice("nonfinite", nonfinite, {"stop", "skip"},
           "At a loss or gradient that is not finite: end the run, or leave the step out");
  v.choice("spikes", spikes, {"ignore", "stop", "skip"}, "The same for gradients far above their running mean");
  v.field("spike_factor", spike_factor, "A spike's gradient norm is above this multiple of the mean");
  v.field("spike_window", spike_window, "Steps that the mean goes back, and that pass before spikes are looked for");
  v.field("most_skipped", most_skipped, "Steps that may be left out in a row before the run ends");
  if (!v.reading()) return;
  require(spike_factor > 1, v.place(), ": spike_factor: found ", spike_factor, ", expected a number above 1");
  require(spike_window >= 1, v.place(), ": spike_window: found ", spike_window, ", expected a number from 1 up");
  require(most_skipped >= 1, v.place(), ": most_skipped: found ", most_skipped, ", expected a number from 1 up");
}

SpikeLimit::SpikeLimit(const GuardConfig& config, at::Device device) : config_(config) {
  if (config_.spikes == "ignore") return;
  mean_ = at::zeros({}, at::TensorOptions(device).dtype(at::kFloat));
  steps_ = at::zeros_like(mean_);
}

at::Tensor SpikeLimit::value() const {
  if (!mean_.defined()) return {};
  const at::Tensor infinite = at::full_like(mean_, std::numeric_limits<float>::infinity());
  return at::where(steps_ >= config_.spike_window, mean_ * config_.spike_factor, infinite);
}

void SpikeLimit::observe(const at::Tensor& norm) {
  if (!mean_.defined()) return;
  const at::Tensor good = at::isfinite(norm).logical_and(norm <= value());
  const at::Tensor steps = steps_ + good;
  const at::Tensor weight = (1.0 / steps.clamp_min(1.0)).clamp_min(1.0 / static_cast<double>(config_.spike_window));
  mean_ = at::where(good, mean_ + weight * (norm - mean_), mean_);
  steps_ = steps;
}

std::vector<Parameter> SpikeLimit::state() const {
  if (!mean_.defined()) return {};
  return {{"guard.norm_mean", mean_}, {"guard.steps", steps_}};
}

void SpikeLimit::restore(const std::vector<Parameter>& tensors) {
  if (!mean_.defined()) return;
  for (const Parameter& tensor : tensors) {
    if (tensor.name == "guard.norm_mean") mean_ = tensor.value.to(mean_.device(), at::kFloat, false, /*copy=*/true);
    if (tensor.name == "guard.steps") steps_ = tensor.value.to(mean_.device(), at::kFloat, false, /*copy=*/true);
  }
}

}  // namespace molt
