// Causal depthwise convolution of width 2 to 4 over packed sequences, with optional bias and SiLU (the short convolution of
// Mamba):
//
//   y[t, c] = silu(bias[c] + sum over k of weight[c, k] * x[t - (width - 1) + k, column(c)])        k = 0 … width - 1
//
// where rows before a sequence's first come from its initial window, or are zero.
//
// With repeat > 1, x is read as if its groups of `group_size` columns were repeated (interleaved, as grouped-query attention
// does): channel c reads column(c) = c / (group_size * repeat) * group_size + c % group_size. Nothing is repeated in memory.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "ops/sequences.h"

namespace molt::ops {

// x is float32, bfloat16 or (on the CPU) float64; its last dimension is contiguous, its rows may lie any stride apart. weight and
// bias are used in float32 (float64 with float64), and converted if they are not.
struct ConvInput {
  at::Tensor x;       // (tokens, columns)
  at::Tensor weight;  // (channels, width), channels = columns * repeat; the last tap is for the token itself
  at::Tensor bias;    // (channels), optional
  at::Tensor
      initial_window;  // (sequences, columns, width - 1), dtype of x, optional: the rows of x before each sequence, oldest first
  bool silu = true;
  std::int64_t repeat = 1;
  std::int64_t group_size = 1;
};

// Returns y (tokens, channels) in x's dtype. Gradients flow to every tensor of `input`. Shapes that do not fit are bugs
// (MOLT_CHECK).
at::Tensor causal_conv(const ConvInput& input, const Sequences& sequences);

// The same in plain tensor operations, by the formula; differentiable by LibTorch.
at::Tensor causal_conv_composite(const ConvInput& input, const Sequences& sequences);

// The windows (sequences, columns, width - 1), dtype of x, with which the sequences go on after their last token; reads x and
// initial_window only (and the width from weight). Differentiable.
at::Tensor causal_conv_final_windows(const ConvInput& input, const Sequences& sequences);

// The same after the tokens at `positions` of the pack: (positions, columns, width - 1), for caches.
at::Tensor causal_conv_windows(const ConvInput& input, const Sequences& sequences, const std::vector<std::int64_t>& positions);

// One token of each of n sequences: row i of x follows the window cache[slots[i]], which is updated in place.
//   cache          (slots, columns, width - 1), dtype of x, contiguous
//   slots          (n) int32 or int64 on the cache's device, all different; on a GPU a row with a negative one is left out
//   context_lens   int32 (n) on the cache's device, optional: where it is 0, the window begins as zeros, whatever the slot holds
// Returns y (n, channels). initial_window is not used. No gradients.
at::Tensor causal_conv_update(const ConvInput& input, const at::Tensor& cache, const at::Tensor& slots,
                              const at::Tensor& context_lens = {});

}  // namespace molt::ops
