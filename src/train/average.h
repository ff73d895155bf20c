// An exponential moving average of the trained weights: average = decay * average + (1 - decay) * weights after each step, fp32.
// It begins as the initial weights.
#pragma once
#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

#include "train/optimizer.h"

namespace molt {

class AveragedWeights {
 public:
  // decay 0: no average is kept and every function does nothing. `optimizer` must outlive this.
  AveragedWeights(double decay, const Optimizer& optimizer);
  bool kept() const { return decay_ > 0; }
  void update();

  // "<name>.average" in the parameter's shape; views, to be copied before the next update.
  std::vector<Parameter> state() const;
  // Puts back what is among `tensors`; UserError of `place` when a parameter's average is missing or has another shape.
  void restore(const std::vector<Parameter>& tensors, const std::string& place);

 private:
  double decay_;
  const Optimizer& optimizer_;
  std::vector<at::Tensor> averages_;  // one a buffer of the optimizer
};

}  // namespace molt
