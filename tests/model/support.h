// Small models and packs for the tests of this room, and caches with which to generate.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "model/model.h"

namespace molt::test {

// Settings of the small models: hidden 24, 4 query heads and 2 key heads of 8, Mamba with 32 channels (8 groups of 4).
BlockConfig attention_block();
BlockConfig window_block(std::int64_t window = 3);
BlockConfig normed_block();  // attention with biases everywhere, and norms of queries and keys
BlockConfig mamba_block(bool repeat_kv_before_conv = true);
ModelConfig small_config(std::vector<BlockConfig> blocks);
// Attention, Mamba, sliding window, Mamba with the convolution before the repetition.
ModelConfig hybrid_config();

std::unique_ptr<Model> new_model(const ModelConfig& config, at::ScalarType dtype = at::kFloat, std::uint64_t seed = 1);

// Sequences of random tokens of a vocabulary of 40.
PackedBatch random_batch(const std::vector<int>& lengths, std::uint64_t seed = 7);
std::vector<std::int32_t> tokens_of(const PackedBatch& batch, std::int64_t sequence);

// Paged caches in which blocks and slots are handed out in a shuffled order and start out full of NaN.
class TestCaches {
 public:
  TestCaches(const Model& model, std::int64_t sequences, std::int64_t longest);
  // Appends fresh[i] to sequence i, through the model; the new tokens' hidden states.
  at::Tensor extend(const Model& model, const std::vector<std::vector<std::int32_t>>& fresh);

 private:
  std::int64_t blocks_each_;
  std::vector<std::int32_t> contexts_;
  std::vector<std::int32_t> block_of_;  // sequence * blocks_each + number -> cache block
  std::vector<std::int64_t> slots_;
  std::vector<BlockCache> caches_;
};

// The largest absolute difference.
double difference(const at::Tensor& a, const at::Tensor& b);

}  // namespace molt::test
