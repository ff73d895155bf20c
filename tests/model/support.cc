#include "model/support.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include <cmath>
#include <numeric>

#include "base/random.h"
#include "model/mixers/attention/attention.h"
#include "model/mixers/mamba/mamba.h"

namespace molt::test {

namespace support_detail {

constexpr std::int64_t page = 16;  // tokens of a cache block
constexpr std::int64_t vocabulary = 40;

BlockConfig block_of(std::shared_ptr<const MixerConfig> mixer) {
  BlockConfig block;
  block.mlp.intermediate_size = 40;
  return block.with_mixer(std::move(mixer));
}

std::shared_ptr<AttentionConfig> attention_config(bool sliding) {
  auto config = std::make_shared<AttentionConfig>(sliding);
  config->heads = 4;
  config->head_groups = 2;
  config->head_size = 8;
  return config;
}

}  // namespace support_detail

BlockConfig attention_block() {
  return support_detail::block_of(support_detail::attention_config(false));
}

BlockConfig window_block(std::int64_t window) {
  auto config = support_detail::attention_config(true);
  config->window = window;
  return support_detail::block_of(config);
}

BlockConfig normed_block() {
  auto config = support_detail::attention_config(false);
  config->qkv_bias = config->output_bias = config->qk_norm = true;
  BlockConfig block = support_detail::block_of(config);
  block.mlp.bias = true;
  return block;
}

BlockConfig mamba_block(bool repeat_kv_before_conv) {
  auto config = std::make_shared<MambaConfig>();
  config->d_inner = 32;
  config->d_xb = 16;
  config->state_size = 4;
  config->dt_rank = 3;
  config->repeat_kv_before_conv = repeat_kv_before_conv;
  return support_detail::block_of(config);
}

ModelConfig small_config(std::vector<BlockConfig> blocks) {
  ModelConfig config;
  config.hidden_size = 24;
  config.vocabulary = support_detail::vocabulary;
  config.blocks = std::move(blocks);
  return config;
}

ModelConfig hybrid_config() {
  return small_config({attention_block(), mamba_block(true), window_block(), mamba_block(false)});
}

std::unique_ptr<Model> new_model(const ModelConfig& config, at::ScalarType dtype, std::uint64_t seed) {
  auto model = std::make_unique<Model>(config);
  model->initialise({.seed = seed, .standard_deviation = 0.2}, at::kCPU, dtype);
  return model;
}

PackedBatch random_batch(const std::vector<int>& lengths, std::uint64_t seed) {
  Random random(seed);
  std::vector<PackedBatch::Sample> samples;
  for (const int length : lengths) {
    PackedBatch::Sample sample;
    for (int i = 0; i < length; ++i) sample.tokens.push_back(static_cast<std::int32_t>(random.below(support_detail::vocabulary)));
    samples.push_back(sample);
  }
  return PackedBatch::of(samples);
}

std::vector<std::int32_t> tokens_of(const PackedBatch& batch, std::int64_t sequence) {
  const auto* tokens = batch.tokens.const_data_ptr<std::int64_t>();
  return {tokens + batch.sequences.offsets[sequence], tokens + batch.sequences.offsets[sequence + 1]};
}

TestCaches::TestCaches(const Model& model, std::int64_t sequences, std::int64_t longest)
    : blocks_each_((longest + support_detail::page - 1) / support_detail::page),
      contexts_(sequences, 0),
      block_of_(sequences * blocks_each_),
      slots_(sequences) {
  Random random(3);
  std::iota(block_of_.begin(), block_of_.end(), 0);
  random.shuffle(block_of_);
  std::iota(slots_.begin(), slots_.end(), 1);
  random.shuffle(slots_);
  for (const auto& spec : model.cache_spec()) {
    BlockCache cache;
    for (const CacheEntry& entry : spec) {
      std::vector<std::int64_t> shape{sequences + 2};
      if (entry.per == CacheEntry::Per::token) shape = {sequences * blocks_each_, support_detail::page};
      shape.insert(shape.end(), entry.shape.begin(), entry.shape.end());
      cache.push_back(at::full(shape, NAN, entry.dtype));
    }
    caches_.push_back(cache);
  }
}

at::Tensor TestCaches::extend(const Model& model, const std::vector<std::vector<std::int32_t>>& fresh) {
  const auto count = static_cast<std::int64_t>(fresh.size());
  std::vector<std::int64_t> tokens, positions, slot_mapping;
  std::vector<std::int32_t> lengths;
  for (std::int64_t i = 0; i < count; ++i) {
    lengths.push_back(static_cast<std::int32_t>(fresh[i].size()));
    for (std::size_t j = 0; j < fresh[i].size(); ++j) {
      const std::int64_t position = contexts_[i] + static_cast<std::int64_t>(j);
      tokens.push_back(fresh[i][j]);
      positions.push_back(position);
      const std::int64_t block = block_of_[i * blocks_each_ + position / support_detail::page];
      slot_mapping.push_back(block * support_detail::page + position % support_detail::page);
    }
  }
  Step step;
  step.tokens = at::tensor(tokens, at::kLong);
  step.positions = at::tensor(positions, at::kLong);
  step.sequences = Sequences::of(lengths);
  step.context_lens = at::tensor(contexts_, at::kInt);
  step.contexts = contexts_;
  step.block_table = at::tensor(block_of_, at::kInt).view({count, blocks_each_});
  step.slot_mapping = at::tensor(slot_mapping, at::kLong);
  step.state_slots = at::tensor(slots_, at::kLong);
  step.state_slots_host = slots_;
  const at::Tensor hidden = model.extend(step, caches_);
  for (std::int64_t i = 0; i < count; ++i) contexts_[i] += lengths[i];
  return hidden;
}

double difference(const at::Tensor& a, const at::Tensor& b) {
  if (a.sizes() != b.sizes()) return INFINITY;
  const double largest = (a.detach().to(at::kDouble) - b.detach().to(at::kDouble)).abs().max().item<double>();
  return std::isnan(largest) ? INFINITY : largest;
}

}  // namespace molt::test
