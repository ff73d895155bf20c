// One new token of each of n sequences through the inside of a Mamba layer, between its projections: the convolution, the step
// sizes, the scan, skip and gate, with each sequence's window and state moved on in place. What causal_conv_update and then
// selective_scan_update give (their headers have the formulas), in one pass over the states where there is a kernel.
#pragma once
#include <ATen/core/Tensor.h>

#include "ops/causal_conv/causal_conv.h"
#include "ops/selective_scan/selective_scan.h"

namespace molt::ops {

// States of up to this size have kernels on a GPU; others wait for it.
constexpr std::int64_t kLargestUpdateState = 128;

// The sequences' places in the caches.
struct MambaCache {
  at::Tensor windows;       // (slots, d_xb, width - 1), dtype of x, contiguous
  at::Tensor states;        // (slots, d_inner, state) float32, contiguous
  at::Tensor slots;         // int64 (n), all different; on a GPU a negative one means that the row belongs to no sequence
  at::Tensor context_lens;  // int32 (n): where it is 0, the sequence begins from zeros, whatever its slot holds
};

// conv and scan hold row i of sequence i, without initial_window, initial_state, scan.x (the convolution's result) and scan.dt,
// which is dt_low (n, rank) times dt_weight (d_inner, rank)^T. Returns y (n, d_inner); the rows of no sequence are zero or
// arbitrary. No gradients.
at::Tensor mamba_update(const ConvInput& conv, const ScanInput& scan, const at::Tensor& dt_low, const at::Tensor& dt_weight,
                        const MambaCache& cache);

}  // namespace molt::ops
