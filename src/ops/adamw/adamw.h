// AdamW on flat buffers (Loshchilov and Hutter, arXiv 1711.05101, algorithm 2), the division and clipping of gradients included:
//
//   g = gradient / scale      m = beta1 m + (1 - beta1) g      v = beta2 v + (1 - beta2) g^2
//   w = (1 - rate decay) w - rate m / (1 - beta1^step) / (sqrt(v / (1 - beta2^step)) + epsilon)
//
// Nothing waits for the device: what the gradients' norm decides is read where it was computed.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace molt::ops {

// fp32 scalars on the device of the gradients.
struct GradientScale {
  at::Tensor norm;    // of all gradients / divisor
  at::Tensor scale;   // divisor * max(1, norm / clip_norm), by which gradients are to be divided
  at::Tensor broken;  // 1 where the norm is not finite or above the limit, 0 otherwise
};

// gradients: flat, contiguous, fp32 or fp64, on one device. clip_norm 0: no clipping. limit: fp32 scalar on the device, optional.
GradientScale clip_gradients(const std::vector<at::Tensor>& gradients, double divisor, double clip_norm,
                             const at::Tensor& limit = {});

// Neighbours of a buffer that are updated alike.
struct AdamWRange {
  std::int64_t begin, end;  // multiples of 4 but for the last end; one range begins where the one before ends
  double weight_decay, learning_rate_factor;
};

// As AdamWBuffer takes them: fp64 (ranges, 3) on `device`: end, weight_decay, learning_rate_factor.
at::Tensor adamw_ranges(const std::vector<AdamWRange>& ranges, at::Device device);

// Contiguous tensors (n) on one device that begin at multiples of 16 bytes.
struct AdamWBuffer {
  at::Tensor weights;                      // fp32 or fp64, or another type beside a master
  at::Tensor master;                       // fp32: what is updated, and rounded into weights; undefined without
  at::Tensor gradients, moment1, moment2;  // in the type of what is updated
  at::Tensor ranges;                       // of adamw_ranges, from 0 to n
};

struct AdamWStep {
  double learning_rate;  // times a range's factor: the formula's rate
  double beta1, beta2, epsilon;
  std::int64_t step;  // 1 for the first
};

// One pass over the buffer. Weights and moments stay as they are where `scale` says broken.
void adamw(const AdamWBuffer& buffer, const AdamWStep& step, const GradientScale& scale);

}  // namespace molt::ops
