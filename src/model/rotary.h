// Rotary positions of a model: the base of the frequencies and how they are scaled for texts longer than those of training.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>

#include "base/config.h"
#include "ops/rotary/rotary.h"
#include "ops/sequences.h"

namespace molt {

// The scalings of transformers (modeling_rope_utils.py), each computed in the same order and precision:
//
//   default  base^(-2 i / width)
//   linear   the same, divided by `factor` (positions interpolated; Chen et al. 2023)
//   dynamic  base grows with the sequence once it is longer than `original_positions`: base (factor L / original - (factor - 1))
//            ^ (width / (width - 2)) for a sequence of L tokens (dynamic NTK)
//   yarn     slow dimensions interpolated, fast ones kept, a linear ramp between them; cosines and sines times
//            `attention_factor` (Peng et al. 2023)
//   llama3   long wavelengths interpolated, short ones kept, a smooth passage between them (Llama 3.1)
struct RotaryConfig {
  std::string type = "default";
  double base = 10000.0;
  double factor = 1.0;                          // of every type but default
  std::int64_t original_positions = 0;          // of dynamic, yarn and llama3: the longest text of training
  std::optional<double> attention_factor = {};  // of yarn; 0.1 ln(factor) + 1 when not given
  double beta_fast = 32, beta_slow = 1;         // of yarn: turns over original_positions where the ramp begins and ends
  bool truncate = true;                         // of yarn: the ramp begins and ends at whole dimensions
  double low_frequency_factor = 1, high_frequency_factor = 4;  // of llama3: original_positions / wavelength where it passes

  void visit(ConfigVisitor& visitor);
  // UserError for settings that give no frequencies; `place` starts it.
  void check(const std::string& place) const;

  // For heads of which `width` values are turned. Those of `dynamic` are for sequences within original_positions.
  ops::Rotary frequencies(std::int64_t width, at::Device device) const;
  // Cosines and sines of a pack's positions, with this configuration's `frequencies` on their device. With `dynamic` each
  // sequence is turned by the frequencies of its own length, the position of its last token + 1: in a forward pass that of the
  // whole sequence, in generation that of what is there so far, while keys in the cache stay as they were turned. That is what
  // transformers computes for a sequence alone, without and with its cache; beyond original_positions the two differ.
  ops::RotaryTable table(const ops::Rotary& frequencies, const at::Tensor& positions, const Sequences& sequences) const;
};

}  // namespace molt
