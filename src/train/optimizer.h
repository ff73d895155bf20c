// AdamW (ops/adamw/adamw.h) over flat buffers: fp32 masters where weights are bf16, clipping by the global norm. By choice Muon
// (muon.h) updates the matrices.
//
// Weight decay acts on projection matrices alone: vectors (norms, biases, D) set scales and offsets that have no reason to be
// small, A_log and the convolution are a recurrence's time constants, and an embedding's row would shrink in every step in which
// its token does not occur.
#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "base/config.h"
#include "model/parameters.h"
#include "ops/adamw/adamw.h"
#include "train/parameter_groups.h"

namespace molt {

struct OptimizerConfig {
  std::string type = "adamw";   // adamw, muon
  double learning_rate = 3e-4;  // the schedule's peak
  double beta1 = 0.9, beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0.1;                                               // on matrices only
  std::vector<std::string> no_decay = {"embedding*", "*A_log", "*conv*"};  // globs of matrices that are not decayed either
  double clip_norm = 1.0;                                                  // 0: no clipping
  double momentum = 0.95;                                                  // of Muon
  std::vector<std::string> never_muon = {"embedding*", "head*", "*A_log", "*conv*"};  // matrices that stay with AdamW
  std::vector<ParameterGroupConfig> groups = {};                                      // later ones go before earlier ones
  void visit(ConfigVisitor& visitor);
};

class Optimizer {
 public:
  // Each buffer's parameters must be all Muon's or all AdamW's (uses_muon).
  Optimizer(const OptimizerConfig& config, std::vector<FlatBuffer> buffers);

  void zero_gradients();
  // Divides the gradients by `divisor`, clips, updates. Returns the global norm of the (divided) gradients before clipping, fp32
  // scalar on the device; nothing waits for it. Weights and moments stay as they were when the norm is not finite or above
  // `limit`, a scalar on the device (undefined: none).
  at::Tensor step(double learning_rate, double divisor, const at::Tensor& limit = {});

  // State by parameter name, in the parameter's shape: "<name>.moment1", ".moment2" (none with Muon), and ".master", the exact
  // weight (the fp32 master, or the weight itself where it has none). Views: copy them before the next step.
  std::vector<Parameter> state() const;
  // Puts such a state back, weights included. Names and shapes are checked before anything changes: UserError of `place`.
  void restore(const std::vector<Parameter>& state, std::int64_t steps_done, const std::string& place);
  std::int64_t steps_done() const { return steps_done_; }
  std::vector<FlatBuffer>& buffers() { return buffers_; }
  const std::vector<FlatBuffer>& buffers() const { return buffers_; }
  // The exact weights of a buffer: its fp32 masters, or its values where they are exact themselves.
  const at::Tensor& weights(std::size_t buffer) const;

 private:
  // What a buffer's update needs beside the buffer; tensors are as long as its values.
  struct Unit {
    at::Tensor moment1, moment2;  // moment2 is undefined where Muon updates
    at::Tensor master;            // fp32; undefined where the values are fp32 or fp64 themselves
    std::vector<UpdateRange> ranges;
    at::Tensor range_table;                          // the same as ops::adamw takes them; undefined where Muon updates
    std::vector<std::vector<std::size_t>> together;  // pieces that Muon updates at once
  };

  void update(std::size_t index, double learning_rate, const ops::GradientScale& scale);
  void update_by_muon(std::size_t index, double learning_rate, const ops::GradientScale& scale);

  OptimizerConfig config_;
  std::vector<FlatBuffer> buffers_;
  std::vector<Unit> units_;  // one a buffer
  std::int64_t steps_done_ = 0;
};

}  // namespace molt
