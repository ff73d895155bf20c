// Losses and their gradients from rows of logits, on the CPU, for float and double.
#pragma once
#include <cstdint>

#include "ops/linear_loss/loss_mix.h"

namespace molt::ops {

template <class T>
struct LossRows {
  std::int64_t rows, vocabulary;
  T* logits;                    // (rows, vocabulary); replaced by the gradient of sum over rows of weight * loss where wanted
  const T* teacher;             // (rows, vocabulary) logits; null without divergences
  const std::int64_t* targets;  // null without cross-entropy
  const T* weights;             // (rows)
  LossMix mix;
  bool gradient;
  T *cross_entropy, *forward_kl, *reverse_kl, *jsd, *log_sums;  // (rows) results, null where not wanted
};

void loss_rows_cpu(const LossRows<float>& work);
void loss_rows_cpu(const LossRows<double>& work);

}  // namespace molt::ops
