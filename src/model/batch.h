// What a training or scoring pass works on: sequences laid end to end, never padded.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "ops/rotary/rotary.h"
#include "ops/sequences.h"

namespace molt {

// Where a sample comes from. Samples that are cut lose their ends, never their beginnings.
struct SampleOrigin {
  std::uint64_t data = 0;   // the fingerprint of a folder of token shards (data_fingerprint); 0: it is of none
  std::int64_t sample = 0;  // its number there
};

struct PackedBatch {
  at::Tensor tokens;        // int64 (tokens)
  at::Tensor targets;       // int64 (tokens): the next token of the same sequence; -100 at each sequence's end
  at::Tensor loss_weights;  // fp32 (tokens): weight of predicting targets[i]; 0 costs nothing
  at::Tensor loss_tokens;   // int64 (loss tokens), ascending: those with a target and a weight, known without asking the device
  at::Tensor positions;     // int64 (tokens): 0, 1, … inside each sequence
  Sequences sequences;      // cu_seqlens on the device and on the host, longest sequence
  std::vector<SampleOrigin> origins = {};  // of each sequence
  // Cosines and sines of `positions`, which Model makes once for all its layers; a mixer called without them makes its own.
  ops::RotaryTable rotary = {};
  double loss_weight = 0;  // sum of loss_weights, known on the host so that no step waits for the device

  std::int64_t size() const { return sequences.tokens(); }
  at::Device device() const { return tokens.device(); }
  PackedBatch to(at::Device device) const;

  // One sequence of the pack: its tokens and the weight of each token as a target (the first one's is never used).
  struct Sample {
    std::vector<std::int32_t> tokens;
    std::vector<float> weights;  // empty: every token has weight 1
    SampleOrigin origin = {};
  };
  // Lays the samples end to end, on the CPU.
  static PackedBatch of(const std::vector<Sample>& samples);
};

}  // namespace molt
