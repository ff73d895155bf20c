// Runs that repeat bit for bit on a GPU, where kernels may otherwise add up in whatever order their threads come.
#pragma once

namespace molt {

// While it lives and `wanted`, LibTorch takes deterministic algorithms, and so do our own operations, which ask
// at::globalContext().deterministicAlgorithms(). Does nothing on construction without `wanted`. Nests.
class DeterministicScope {
 public:
  explicit DeterministicScope(bool wanted);
  ~DeterministicScope();
  DeterministicScope(const DeterministicScope&) = delete;
  DeterministicScope& operator=(const DeterministicScope&) = delete;

 private:
  bool algorithms_, warn_only_, fill_;  // as they were
};

}  // namespace molt
