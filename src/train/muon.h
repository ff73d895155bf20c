// Muon, the update of matrices by an orthogonal matrix near their momentum (Jordan et al. 2024,
// kellerjordan.github.io/posts/muon), scaled to the size of AdamW's updates so that both share one learning rate and weight decay
// (Liu et al., arXiv 2502.16982).
//
//   m = momentum * m + g          u = orthogonal(g + momentum * m)      (Nesterov)
//   w = w - lr * (weight_decay * w + 0.2 * sqrt(max(rows, columns)) * u)
//
// A projection of several sections (q|k|v, gate|up) is one matrix.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace molt {

// U V^T of matrix = U S V^T, nearly: five Newton-Schulz steps x = a x + (b x x^T + c (x x^T)^2) x with (a, b, c) = (3.4445,
// -4.7750, 2.0315), which bring every singular value into about [0.7, 1.2]. (rows, columns), fp32 or bf16; computed in that
// dtype.
at::Tensor orthogonalized(const at::Tensor& matrix);

struct MuonStep {
  double learning_rate, momentum, weight_decay;
  at::Tensor scale;   // scalar that gradients are divided by
  at::Tensor broken;  // scalar, 1: weight and momentum must stay as they are
};

// One matrix, in place: weight and moment in fp32, on a GPU the orthogonal matrix is computed in bf16.
void muon_update(at::Tensor weight, at::Tensor moment, const at::Tensor& gradient, const MuonStep& step);

}  // namespace molt
