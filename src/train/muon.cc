#include "train/muon.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cmath>

namespace molt {

namespace muon {

std::vector<at::Tensor> parts(const std::vector<MuonMatrix>& matrices, at::Tensor MuonMatrix::* part) {
  std::vector<at::Tensor> result;
  for (const MuonMatrix& matrix : matrices) result.push_back(matrix.*part);
  return result;
}

}  // namespace muon

at::Tensor orthogonalized(const at::Tensor& matrices) {
  constexpr double a = 3.4445, b = -4.7750, c = 2.0315;
  const bool tall = matrices.size(1) > matrices.size(2);  // the smaller of x x^T and x^T x
  at::Tensor x = tall ? matrices.mT().contiguous() : matrices;
  x = x / at::linalg_vector_norm(x, 2, {1, 2}, /*keepdim=*/true).clamp_min(1e-7);
  for (int i = 0; i < 5; ++i) {
    const at::Tensor gram = at::bmm(x, x.mT());
    x = at::baddbmm(x, at::baddbmm(gram, gram, gram, b, c), x, a);
  }
  return tall ? x.mT() : x;
}

void muon_update(const std::vector<MuonMatrix>& matrices, const MuonStep& step) {
  const std::vector<at::Tensor> weights = muon::parts(matrices, &MuonMatrix::weight),
                                moments = muon::parts(matrices, &MuonMatrix::moment);
  const at::Tensor keep = step.broken > 0, gradient = at::stack(muon::parts(matrices, &MuonMatrix::gradient));
  const at::Tensor g = at::where(keep, at::zeros({}, gradient.options()), gradient / step.scale.to(gradient.scalar_type()));
  const at::Tensor old = at::stack(moments), moment = at::where(keep, old, old * step.momentum + g);
  at::_foreach_copy_(moments, moment.unbind());
  at::Tensor direction = g + moment * step.momentum;
  if (direction.is_cuda()) direction = direction.to(at::kBFloat16);
  const at::Tensor weight = at::stack(weights);
  const double size = 0.2 * std::sqrt(static_cast<double>(std::max(weight.size(1), weight.size(2))));
  const at::Tensor update = orthogonalized(direction).to(weight.scalar_type()) * size + weight * step.weight_decay;
  at::_foreach_copy_(weights, at::where(keep, weight, weight - update * step.learning_rate).unbind());
}

}  // namespace molt
