#include "distill/paired.h"

#include <ATen/Functions.h>

#include <cmath>
#include <numeric>

#include "base/error.h"

namespace molt {

void SequenceSums::add(const at::Tensor& figure, const PackedBatch& batch) {
  const at::Tensor values = figure.to(at::kCPU, at::kDouble), counts = batch.loss_weights.to(at::kCPU, at::kDouble);
  const at::Tensor targets = batch.targets.cpu();
  const double* value = values.const_data_ptr<double>();
  const double* count = counts.const_data_ptr<double>();
  const auto* target = targets.const_data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < batch.sequences.count(); ++i) {
    double sum = 0, weight = 0;
    for (std::int64_t t = batch.sequences.offsets[i]; t < batch.sequences.offsets[i + 1]; ++t) {
      if (target[t] < 0) continue;
      sum += value[t] * count[t];
      weight += count[t];
    }
    sums.push_back(sum);
    weights.push_back(weight);
  }
}

double SequenceSums::mean() const {
  const double weight = std::accumulate(weights.begin(), weights.end(), 0.0);
  return weight > 0 ? std::accumulate(sums.begin(), sums.end(), 0.0) / weight : 0;
}

double SequenceSums::standard_error() const {
  const double weight = std::accumulate(weights.begin(), weights.end(), 0.0), center = mean();
  double squares = 0, count = 0;
  for (std::size_t i = 0; i < sums.size(); ++i) {
    if (weights[i] == 0) continue;
    const double residual = sums[i] - center * weights[i];
    squares += residual * residual;
    ++count;
  }
  return count > 1 ? std::sqrt(squares * count / (count - 1)) / weight : 0;
}

SequenceSums SequenceSums::minus(const SequenceSums& other) const {
  MOLT_CHECK(weights == other.weights, "figures of different sequences");
  SequenceSums difference = *this;
  for (std::size_t i = 0; i < sums.size(); ++i) difference.sums[i] -= other.sums[i];
  return difference;
}

}  // namespace molt
