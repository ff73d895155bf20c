// Losses and their gradients from rows of logits, on a GPU.
#pragma once
#include <cstdint>

#include "ops/linear_loss/loss_mix.h"

namespace molt::ops {

struct CudaLossRows {
  bool float64, narrow;  // logits, weights and losses are float64, else float32; the gradient is bfloat16, else as the logits
  std::int64_t rows, vocabulary;
  const void* logits;   // (rows, vocabulary)
  const void* teacher;  // (rows, vocabulary) logits; null without divergences
  void* gradient;  // (rows, vocabulary) of sum over rows of weight * loss, null where not wanted; may be the logits if not narrow
  const std::int64_t* targets;  // null without cross-entropy; a target outside the vocabulary makes its row's loss NaN
  const void* weights;          // (rows)
  LossMix mix;
  void *cross_entropy, *forward_kl, *reverse_kl, *jsd, *log_sums;  // (rows) results, null where not wanted
};

// On the current GPU, in order on `stream` (a cudaStream_t).
void loss_rows_cuda(const CudaLossRows& work, void* stream);

}  // namespace molt::ops
