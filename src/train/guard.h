// What happens at steps whose gradients cannot be trusted: not finite, or far larger than they have been.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/config.h"
#include "model/parameters.h"

namespace molt {

struct GuardConfig {
  std::string nonfinite = "stop";   // stop, skip
  std::string spikes = "ignore";    // ignore, stop, skip
  double spike_factor = 8;          // a spike's gradient norm is above this multiple of the running mean
  std::int64_t spike_window = 100;  // steps that the mean goes back, about, and that pass before it is believed
  std::int64_t most_skipped = 10;   // steps in a row; one more stops the run
  void visit(ConfigVisitor& visitor);
};

// The largest gradient norm that is believed, kept on the device so that no step waits for the host:
// spike_factor times the mean of the norms of earlier good steps, each newest one entering with weight
// max(1 / spike_window, 1 / steps so far); infinite before spike_window good steps were seen and where spikes are ignored.
class SpikeLimit {
 public:
  SpikeLimit(const GuardConfig& config, at::Device device);
  // fp32 scalar on the device. A step of a larger norm, or of one that is not finite, must leave weights as they are.
  at::Tensor value() const;
  // Takes a step's gradient norm, fp32 scalar, into the mean if it is below the limit.
  void observe(const at::Tensor& norm);

  // "guard.norm_mean", "guard.steps": for checkpoints; none where spikes are ignored.
  std::vector<Parameter> state() const;
  void restore(const std::vector<Parameter>& tensors);

 private:
  GuardConfig config_;
  at::Tensor mean_, steps_;  // fp32 scalars
};

}  // namespace molt
