// Means over sequences with their spread: sequences are the independent draws of a text, tokens are not.
#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "model/batch.h"

namespace molt {

// Weighted sums of a figure by sequence; add() in the same order for each of two figures to be compared.
struct SequenceSums {
  std::vector<double> sums, weights;  // a sequence each

  // `figure` (tokens) of a batch: one entry a sequence, each token counted with its loss weight.
  void add(const at::Tensor& figure, const PackedBatch& batch);
  double mean() const;
  // Of the mean, as a ratio of two sums over independent sequences.
  double standard_error() const;
  // The figure's difference from another one on the same sequences.
  SequenceSums minus(const SequenceSums& other) const;
};

}  // namespace molt
