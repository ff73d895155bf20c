// The inside of a Mamba layer over whole sequences, between its projections: causal_conv and then selective_scan (their headers
// have the formulas) of the parts z | x | B | C of one product, whose gradient is written as one matrix. (Autograd would fill
// such a matrix with zeros for each part and add them up: a tenth of the time of the layer's products.)
#pragma once
#include <ATen/core/Tensor.h>

#include "ops/causal_conv/causal_conv.h"
#include "ops/selective_scan/selective_scan.h"

namespace molt::ops {

// zxBC (tokens, 2 d_inner + 2 d_xb), where d_inner is that of scan.A_log: conv.x, scan.z, scan.B and scan.C become views of its
// columns.
void set_parts(const at::Tensor& zxBC, ConvInput& conv, ScanInput& scan);

// conv and scan hold the inputs that are not parts of zxBC, without scan.x (the convolution's result), and without initial_window
// and initial_state: sequences begin from zeros. Returns y (tokens, d_inner). Gradients flow to zxBC and to the tensors of conv
// and scan.
at::Tensor mamba_scan(const at::Tensor& zxBC, const ConvInput& conv, const ScanInput& scan, const Sequences& sequences);

}  // namespace molt::ops
