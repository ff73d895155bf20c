// The scan's two directions by themselves, for operations that have it inside a node of their own.
#pragma once
#include "ops/autograd.h"
#include "ops/causal_conv/causal_conv.h"
#include "ops/selective_scan/selective_scan.h"
#include "ops/shared_sums.h"

namespace molt::ops::scan {

void check(const ScanInput& in, std::int64_t tokens, std::int64_t sequences);
bool has_kernel(const ScanInput& in);

// A scan's inputs in the order of its gradients, and back.
Tensors pack(const ScanInput& in);
ScanInput unpack(const Tensors& tensors);

// Whether the convolution that makes in.x can be left to forward: on a GPU, for the shapes of Mamba's layers. `conv` and `in`
// hold the same x, before it.
bool takes_convolution(const ScanInput& in, const ConvInput& conv);

// y, then the final state and the states at positions if they are wanted. Saves the inputs and, last, states for backward. With
// `conv` in.x is what has yet to be convolved; what is saved is what it came to.
Tensors forward(const ScanInput& in, const Sequences& sequences, const ScanRequest& request, Saved& saved,
                const ConvInput* conv = nullptr);

// Where gradients go: of the inputs' shapes and dtype, rows any stride apart; undefined: to memory of their own.
struct GradientRoom {
  at::Tensor B, C, z;
};

// From the gradients of y and of the final state (undefined: zero) those of the inputs. `kept` is what forward saved last.
// Those of dt_bias, A_log and D are there once `sums` are finished.
Tensors backward(const ScanInput& in, const at::Tensor& kept, const Sequences& sequences, const at::Tensor& y,
                 const at::Tensor& final_state, const std::vector<bool>& needed, const GradientRoom& wanted, SharedSums& sums);

}  // namespace molt::ops::scan
