#include "train/deterministic.h"

#include <ATen/Context.h>

#include <cstdlib>

namespace molt {

DeterministicScope::DeterministicScope(bool wanted)
    : algorithms_(at::globalContext().deterministicAlgorithms()),
      warn_only_(at::globalContext().deterministicAlgorithmsWarnOnly()),
      fill_(at::globalContext().deterministicFillUninitializedMemory()) {
  if (!wanted) return;
  // LibTorch refuses deterministic matrix products without it. An own setting of the user's stays.
  setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0);
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  // Tensors would otherwise be filled with NaN before every kernel writes them.
  at::globalContext().setDeterministicFillUninitializedMemory(false);
}

DeterministicScope::~DeterministicScope() {
  at::globalContext().setDeterministicAlgorithms(algorithms_, warn_only_);
  at::globalContext().setDeterministicFillUninitializedMemory(fill_);
}

}  // namespace molt
