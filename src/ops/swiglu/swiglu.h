// The gated MLP's activation (Shazeer 2020): silu(gate) * up, silu(x) = x / (1 + exp(-x)).
#pragma once
#include <ATen/core/Tensor.h>

namespace molt::ops {

// gate_up (tokens, 2 * intermediate): a row holds gate, then up, as the one projection `gate|up` writes them. Result (tokens,
// intermediate) in the same dtype. Keeps only gate_up for backward. Differentiable.
at::Tensor swiglu(const at::Tensor& gate_up);

// The formula in plain LibTorch calls: for every device and dtype, and the reference in tests.
at::Tensor swiglu_composite(const at::Tensor& gate_up);

}  // namespace molt::ops
