// AdamW over flat buffers: fused, fp32 masters where weights are bf16, no weight decay on vectors, clipping by the global norm.
// Decoupled weight decay, Loshchilov and Hutter, arXiv 1711.05101.
#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "base/config.h"
#include "model/parameters.h"

namespace molt {

struct OptimizerConfig {
  double learning_rate = 3e-4;
  double beta1 = 0.9, beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0.1;  // on matrices only
  double clip_norm = 1.0;     // 0: no clipping
  void visit(ConfigVisitor& visitor);
};

class AdamW {
 public:
  AdamW(const OptimizerConfig& config, std::vector<FlatBuffer> buffers);

  void zero_gradients();
  // Divides the gradients by `divisor`, clips, updates. Returns the global norm of the (divided) gradients before clipping, fp32
  // scalar. Weights stay as they were when the norm is not finite.
  at::Tensor step(double learning_rate, double divisor);

  // State by parameter name: "<name>.moment1", ".moment2", ".master" (when the weight is not fp32); restore checks names and
  // shapes.
  std::vector<Parameter> state() const;
  void restore(const std::vector<Parameter>& state, std::int64_t steps_done);
  std::int64_t steps_done() const { return steps_done_; }
  std::vector<FlatBuffer>& buffers() { return buffers_; }

 private:
  OptimizerConfig config_;
  std::vector<FlatBuffer> buffers_;
  std::vector<at::Tensor> moments1_, moments2_, masters_, decay_;
  std::int64_t steps_done_ = 0;
};

}  // namespace molt
