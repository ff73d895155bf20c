// Muon, the update of matrices by an orthogonal matrix near their momentum (Jordan et al. 2024,
// kellerjordan.github.io/posts/muon), scaled to the size of AdamW's updates so that both share one learning rate and weight decay
// (Liu et al., arXiv 2502.16982).
//
//   m = momentum * m + g          u = orthogonal(g + momentum * m)      (Nesterov)
//   w = w - lr * (weight_decay * w + 0.2 * sqrt(max(rows, columns)) * u)
//
// A projection of several sections (q|k|v, gate|up) is one matrix. Matrices of one shape are updated together: a product of each
// layer's alone is too small for a GPU, which would spend the step on starting them.
#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

namespace molt {

// U V^T of each matrix = U S V^T, nearly: five Newton-Schulz steps x = a x + (b x x^T + c (x x^T)^2) x with (a, b, c) = (3.4445,
// -4.7750, 2.0315), which bring every singular value into about [0.7, 1.2]. (matrices, rows, columns), fp32 or bf16; computed in
// that dtype.
at::Tensor orthogonalized(const at::Tensor& matrices);

struct MuonMatrix {
  at::Tensor weight, moment, gradient;  // (rows, columns); weight and moment in fp32
};

struct MuonStep {
  double learning_rate, momentum, weight_decay;
  at::Tensor scale;   // scalar that gradients are divided by
  at::Tensor broken;  // scalar, 1: weights and momenta must stay as they are
};

// Updates weights and moments of matrices of one shape in place; on a GPU the orthogonal matrices are computed in bf16. Needs
// memory for some ten copies of them.
void muon_update(const std::vector<MuonMatrix>& matrices, const MuonStep& step);

}  // namespace molt
