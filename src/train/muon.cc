#include "train/muon.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cmath>

namespace molt {

at::Tensor orthogonalized(const at::Tensor& matrix) {
  constexpr double a = 3.4445, b = -4.7750, c = 2.0315;
  const bool tall = matrix.size(0) > matrix.size(1);  // the smaller of x x^T and x^T x
  at::Tensor x = tall ? matrix.t().contiguous() : matrix;
  x = x / x.norm().clamp_min(1e-7);
  for (int i = 0; i < 5; ++i) {
    const at::Tensor gram = at::mm(x, x.t());
    x = at::addmm(x, at::addmm(gram, gram, gram, b, c), x, a);
  }
  return tall ? x.t() : x;
}

void muon_update(at::Tensor weight, at::Tensor moment, const at::Tensor& gradient, const MuonStep& step) {
  const at::Tensor keep = step.broken > 0;
  const at::Tensor g = at::where(keep, at::zeros({}, gradient.options()), gradient / step.scale.to(gradient.scalar_type()));
  moment.copy_(at::where(keep, moment, moment * step.momentum + g));
  at::Tensor direction = g + moment * step.momentum;
  if (direction.is_cuda()) direction = direction.to(at::kBFloat16);
  const double size = 0.2 * std::sqrt(static_cast<double>(std::max(weight.size(0), weight.size(1))));
  const at::Tensor update = orthogonalized(direction).to(weight.scalar_type()) * size + weight * step.weight_decay;
  weight.copy_(at::where(keep, weight, weight - update * step.learning_rate));
}

}  // namespace molt
