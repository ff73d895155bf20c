// Gradients of small parameters, which parts of the work leave a share of each.
#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

namespace molt::ops {

// The sums of an operation, kMostSums (ops/sum_shares.h) at most. On a GPU they are one kernel, which also converts them.
class SharedSums {
 public:
  // The sum of shares (parts, …) over the parts, of `like`'s dtype; `shares` may be undefined. On a GPU the sum is found by
  // finish(), which must be called.
  at::Tensor add(const at::Tensor& shares, const at::Tensor& like);
  void finish();

 private:
  struct Sum {
    at::Tensor shares, to;
  };
  std::vector<Sum> pending_;
};

}  // namespace molt::ops
