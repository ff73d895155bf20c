// What one call of extend() works on: chunked prefill and one-token decode of many sequences alike, and the caches it reads and
// writes.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "ops/rotary/rotary.h"
#include "ops/sequences.h"

namespace molt {

// New tokens of n sequences, laid end to end. Sequence i has context_lens[i] tokens in its caches already; what the caches hold
// for a sequence without context is ignored, so slots need no clearing between sequences. A contiguous cache is the case of one
// block a sequence. The memory belongs to the engine (infer/).
struct Step {
  at::Tensor tokens;                   // int64 (tokens)
  at::Tensor positions;                // int64 (tokens): context_lens[i], context_lens[i] + 1, … for sequence i
  Sequences sequences;                 // of the new tokens
  at::Tensor context_lens;             // int32 (sequences), on the device
  std::vector<std::int32_t> contexts;  // the same on the host
  at::Tensor block_table;              // int32 (sequences, blocks of the longest): which cache blocks hold sequence i, in order
  at::Tensor slot_mapping;             // int64 (tokens): block * block_size + offset where each new token's entries go
  at::Tensor state_slots;              // int64 (sequences): where each sequence's recurrent state lives
  // Host copies for the CPU path, empty on a GPU.
  std::vector<std::int64_t> state_slots_host;
  // Cosines and sines of `positions`, which Model makes once for all its layers; a mixer called without them makes its own.
  ops::RotaryTable rotary = {};
};

// One tensor that a mixer keeps while it generates.
struct CacheEntry {
  enum class Per { token, sequence };
  std::string name;                 // "key", "value", "conv", "state"
  std::vector<std::int64_t> shape;  // of one token's or one sequence's share
  at::ScalarType dtype;
  Per per;
  std::int64_t bytes() const;  // of one share
};

// The tensors of one block's cache_spec(), in its order. per token: (blocks, block_size, shape…); per sequence: (slots, shape…).
using BlockCache = std::vector<at::Tensor>;

}  // namespace molt
