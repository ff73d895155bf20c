// Rotary position embedding (Su et al. 2021) in the half-split layout of Hugging Face ("rotate_half"): dimension i of a head and
// dimension i + rotary/2 form a pair, which is turned by the angle position * inverse_frequencies[i].
#pragma once
#include <ATen/core/Tensor.h>

namespace molt::ops {

// Everything that a scaling (linear, dynamic NTK, YaRN, llama3) changes.
struct Rotary {
  at::Tensor
      inverse_frequencies;  // fp32 (rotary / 2) on the device of the data; rotary <= head_size, later dimensions are not turned
  double factor = 1;        // multiplies the cosines and sines (YaRN's attention factor)
};

// theta^(-2 i / rotary), i < rotary / 2: the unscaled frequencies, computed as transformers does, in fp32.
at::Tensor rotary_frequencies(std::int64_t rotary, double theta, at::Device device = at::kCPU);

// The cosines and sines of a pack's positions, times the factor. The same for every layer: build it once a step.
struct RotaryTable {
  at::Tensor cos, sin;  // fp32 (tokens, rotary / 2)
};

// positions: int64 or int32 (tokens), counted from each sequence's begin. Angles are fp32 products, as in transformers.
RotaryTable rotary_table(const Rotary& rotary, const at::Tensor& positions);

// x (tokens, heads, head_size), turned; a new tensor. Rows may be strided (a part of a projection). Differentiable in x.
at::Tensor rotary(const at::Tensor& x, const RotaryTable& table);

struct QueryKeyValue {
  at::Tensor q;     // (tokens, heads, head_size)
  at::Tensor k, v;  // (tokens, kv_heads, head_size)
};

// Splits the attention projection qkv (tokens, (heads + 2 kv_heads) * head_size), whose rows hold q, then k, then v, and turns q
// and k. One pass, and backward one pass that writes the gradient of qkv as a whole. A default-constructed table turns nothing (a
// split alone, for layers without positions or with norms between split and rotation). Differentiable in qkv.
QueryKeyValue rotary_qkv(const at::Tensor& qkv, std::int64_t heads, std::int64_t kv_heads, const RotaryTable& table);

// The formula in plain LibTorch calls: for every device and dtype, and the reference in tests.
at::Tensor rotary_composite(const at::Tensor& x, const RotaryTable& table);

}  // namespace molt::ops
