// A decode step of a model as small as stories260k (hidden 64, 5 layers, 8 query and 4 key heads of 8, MLP 172, vocabulary 512),
// where what counts is the work around the arithmetic; and training steps of one layer of each mixer, by what is computed again.
#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <benchmark/benchmark.h>

#include <memory>
#include <vector>

#include "model/mixers/attention/attention.h"
#include "model/mixers/mamba/mamba.h"
#include "model/model.h"
#include "ops/linear_loss/linear_loss.h"

namespace molt {

namespace model_bench {

BlockConfig attention_block(std::int64_t heads, std::int64_t groups, std::int64_t head_size, std::int64_t mlp) {
  auto config = std::make_shared<AttentionConfig>();
  config->heads = heads;
  config->head_groups = groups;
  config->head_size = head_size;
  BlockConfig block;
  block.mlp.intermediate_size = mlp;
  return block.with_mixer(config);
}

// Of the same sizes, as Mamba-in-Llama makes it.
BlockConfig mamba_block(std::int64_t heads, std::int64_t groups, std::int64_t head_size, std::int64_t mlp, std::int64_t state) {
  auto config = std::make_shared<MambaConfig>();
  config->d_inner = heads * head_size;
  config->d_xb = groups * head_size;
  config->state_size = state;
  BlockConfig block;
  block.mlp.intermediate_size = mlp;
  return block.with_mixer(config);
}

std::unique_ptr<Model> new_model(std::int64_t hidden, std::int64_t vocabulary, std::vector<BlockConfig> blocks) {
  ModelConfig config;
  config.hidden_size = hidden;
  config.vocabulary = vocabulary;
  config.blocks = std::move(blocks);
  auto model = std::make_unique<Model>(config);
  model->initialise({}, at::kCPU, at::kFloat);
  return model;
}

// One token for each of `batch` sequences of `context` tokens, head included.
void decode(benchmark::State& state, const std::vector<BlockConfig>& blocks) {
  const std::int64_t batch = state.range(0), context = 128, longest = 256;
  const auto model = new_model(64, 512, blocks);
  std::vector<BlockCache> caches;
  for (const auto& spec : model->cache_spec()) {
    BlockCache cache;
    for (const CacheEntry& entry : spec) {
      std::vector<std::int64_t> shape{batch};
      if (entry.per == CacheEntry::Per::token) shape.push_back(longest);
      shape.insert(shape.end(), entry.shape.begin(), entry.shape.end());
      cache.push_back(at::zeros(shape, entry.dtype));
    }
    caches.push_back(cache);
  }
  Step step;
  step.tokens = at::full({batch}, 3, at::kLong);
  step.positions = at::full({batch}, context, at::kLong);
  step.sequences = Sequences::of(std::vector<std::int32_t>(batch, 1));
  step.context_lens = at::full({batch}, context, at::kInt);
  step.contexts.assign(batch, static_cast<std::int32_t>(context));
  step.block_table = at::arange(batch, at::kInt).view({batch, 1});
  step.slot_mapping = at::arange(batch, at::kLong) * longest + context;
  step.state_slots = at::arange(batch, at::kLong);
  for (std::int64_t i = 0; i < batch; ++i) step.state_slots_host.push_back(i);
  for (auto _ : state) benchmark::DoNotOptimize(model->logits(model->extend(step, caches)));
  state.SetItemsProcessed(state.iterations() * batch);
}

void decode_attention(benchmark::State& state) {
  decode(state, std::vector<BlockConfig>(5, attention_block(8, 4, 8, 172)));
}

void decode_mamba(benchmark::State& state) {
  decode(state, std::vector<BlockConfig>(5, mamba_block(8, 4, 8, 172, 8)));
}

// Forward and backward of one layer, hidden 512, 8 query and 2 key heads of 64, over two sequences of 512 tokens, with the loss
// of a head of 4096.
void train(benchmark::State& state, const BlockConfig& block) {
  const auto recompute = static_cast<Recompute>(state.range(0));
  const auto model = new_model(512, 4096, {block});
  auto buffers = flatten_trainable([&](const ParameterVisitor& v) { model->visit(v); }, [](const std::string&) { return true; });
  std::vector<PackedBatch::Sample> samples(2);
  for (auto& sample : samples) sample.tokens.assign(512, 3);
  const PackedBatch batch = PackedBatch::of(samples);
  for (auto _ : state) {
    for (FlatBuffer& buffer : buffers) zero_gradients(buffer);
    const at::Tensor hidden = model->forward(batch, recompute);
    ops::linear_cross_entropy(hidden, model->head_weight(), batch.targets, batch.loss_weights).sum.backward();
  }
  state.SetItemsProcessed(state.iterations() * batch.size());
  state.counters["flops/s"] = benchmark::Counter(3 * model->flops(256) * static_cast<double>(state.iterations() * batch.size()),
                                                 benchmark::Counter::kIsRate);
}

void train_attention(benchmark::State& state) {
  train(state, attention_block(8, 2, 64, 1536));
}

void train_mamba(benchmark::State& state) {
  train(state, mamba_block(8, 2, 64, 1536, 16));
}

BENCHMARK(decode_attention)->Arg(1)->Arg(32)->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK(decode_mamba)->Arg(1)->Arg(32)->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK(train_attention)->Arg(0)->Arg(1)->Arg(2)->ArgName("recompute")->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK(train_mamba)->Arg(0)->Arg(1)->Arg(2)->ArgName("recompute")->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace model_bench

}  // namespace molt
