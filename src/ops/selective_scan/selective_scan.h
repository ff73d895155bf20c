// The selective scan of Mamba-1 with heads (Gu and Dao 2023, arXiv 2312.00752; grouped as in M1 and Mamba-in-Llama), over packed
// sequences. For a channel c of group g = c / state, with repeat = d_inner / d_xb, and for each token of a sequence in turn:
//
//   dt       = softplus(dt[c] + dt_bias[c])
//   h[c, n]  = exp(-exp(A_log[c, n]) * dt) * h[c, n] + dt * B[g / repeat, n] * x[c]        n = 0 … state - 1
//   y[c]     = (sum over n of C[g, n] * h[c, n]  +  D[c] * x[c]) * silu(z[c])
//
// Groups lie beside each other in the columns of B and C (group j is columns j * state … (j + 1) * state - 1), and group j of x
// and B serves the groups j * repeat … (j + 1) * repeat - 1 of the channels (interleaved, as grouped-query attention does), read
// in place.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "ops/sequences.h"

namespace molt::ops {

// x, dt, B, C and z share one dtype: float32, bfloat16 or (on the CPU) float64. Their last dimension is contiguous, their rows
// may lie any stride apart: slices of one projection's output are read where they are. The others are float32 (float64 with
// float64 inputs); another dtype is converted. d_inner and d_xb are multiples of `state`, d_inner one of d_xb.
struct ScanInput {
  at::Tensor x;              // (tokens, d_xb), or (tokens, d_inner) when x is repeated already
  at::Tensor dt;             // (tokens, d_inner), before bias and softplus
  at::Tensor dt_bias;        // (d_inner), optional
  at::Tensor A_log;          // (d_inner, state)
  at::Tensor B;              // (tokens, d_xb)
  at::Tensor C;              // (tokens, d_inner)
  at::Tensor D;              // (d_inner), optional: the skip
  at::Tensor z;              // (tokens, d_inner), optional: the gate
  at::Tensor initial_state;  // (sequences, d_inner, state), optional: zero when undefined
};

// What is wanted besides y.
struct ScanRequest {
  bool final_state = false;
  std::vector<std::int64_t> positions;  // places in the pack, ascending, whose states (after their token) are wanted
};

struct ScanOutput {
  at::Tensor y;            // (tokens, d_inner), dtype of x
  at::Tensor final_state;  // (sequences, d_inner, state) float32; the initial state of a sequence without tokens
  at::Tensor states;       // (positions, d_inner, state) float32, without gradient: for caches
};

// Gradients flow to every tensor of `input` from y and from final_state. Keeps one state in 32 tokens (on the
// CPU in 16) for the backward pass, which computes the others again. Results do not depend on the number of threads. Shapes that
// do not fit are bugs (MOLT_CHECK).
//
// On a GPU two runs agree bit for bit, but long sequences are cut where a batch alone would not fill it: the last bits of a
// sequence's results depend on what is in the batch beside it. With bfloat16 inputs the gradients of B, C, dt and A_log come of
// states that were rounded to bfloat16 once all later ones had been computed from them.
ScanOutput selective_scan(const ScanInput& input, const Sequences& sequences, const ScanRequest& request = {});

// Bytes of the states that selective_scan keeps for the backward pass: float32, float64 for inputs of that `dtype`. Of A_log
// (d_inner, state) only the shape is read.
std::int64_t selective_scan_kept_bytes(std::int64_t tokens, std::int64_t sequences, const at::Tensor& A_log, at::ScalarType dtype,
                                       at::Device device);

// selective_scan in plain tensor operations, by the formula; differentiable by LibTorch. Slow, and keeps (tokens, d_inner, state)
// tensors.
ScanOutput selective_scan_composite(const ScanInput& input, const Sequences& sequences, const ScanRequest& request = {});

// One token of each of n sequences: row i of x, dt, B, C and z continues the state cache[slots[i]], which is updated in place.
//   cache          (slots, d_inner, state) float32, contiguous
//   slots          (n) int32 or int64 on the cache's device, all different; on a GPU a row with a negative one is left out
//   context_lens   int32 (n) on the cache's device, optional: where it is 0, the state begins as zeros, whatever the slot holds
// Returns y (n, d_inner). initial_state is not used. No gradients.
at::Tensor selective_scan_update(const ScanInput& input, const at::Tensor& cache, const at::Tensor& slots,
                                 const at::Tensor& context_lens = {});

}  // namespace molt::ops
