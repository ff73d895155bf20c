// One decoding step of the engine, by batch: the shape of stories260k, where the calls around the arithmetic count, and a model
// of 125 M parameters, where reading its weights does. A Mamba layer in place of each attention layer beside them.
#include <benchmark/benchmark.h>

#include <memory>
#include <string>

#include "infer/engine.h"
#include "model/mixers/attention/attention.h"
#include "model/mixers/mamba/mamba.h"

namespace molt {
namespace decode_bench {

struct Shape {
  std::int64_t hidden, layers, heads, groups, mlp, vocabulary;
};
constexpr Shape kStories{64, 5, 8, 4, 172, 512}, kMistral{768, 12, 12, 4, 2048, 32000};

std::unique_ptr<Model> make_model(const Shape& shape, const std::string& type) {
  ModelConfig config;
  config.hidden_size = shape.hidden;
  config.vocabulary = shape.vocabulary;
  config.tied_embeddings = true;
  const std::int64_t head_size = shape.hidden / shape.heads;
  for (std::int64_t i = 0; i < shape.layers; ++i) {
    auto mixer = mixer_kind(type, "bench").make_config();
    if (auto* attention = dynamic_cast<AttentionConfig*>(mixer.get())) {
      attention->heads = shape.heads, attention->head_groups = shape.groups, attention->head_size = head_size;
    } else if (auto* mamba = dynamic_cast<MambaConfig*>(mixer.get())) {
      mamba->d_inner = shape.hidden, mamba->d_xb = shape.groups * head_size, mamba->state_size = 8;
    }
    BlockConfig block;
    block.active = type;
    block.mixers[type] = std::move(mixer);
    block.mlp.intermediate_size = shape.mlp;
    config.blocks.push_back(block);
  }
  auto model = std::make_unique<Model>(config);
  model->initialise({}, at::kCPU, at::kFloat);
  return model;
}

void decode(benchmark::State& state, const Shape& shape, const std::string& type) {
  static std::string made;
  static std::unique_ptr<Model> model;
  const std::string name = type + std::to_string(shape.hidden);
  if (name != made) model = make_model(shape, type), made = name;

  const std::int64_t batch = state.range(0), room = 512;
  std::unique_ptr<Engine> engine;
  std::int64_t tokens = 0;
  for (auto _ : state) {
    if (!engine || engine->idle()) {
      state.PauseTiming();
      engine = std::make_unique<Engine>(*model, EngineOptions{.max_sequences = batch, .max_tokens = room});
      for (std::int64_t i = 0; i < batch; ++i) engine->submit({.prompt = {1, 2, 3, 4, 5}, .max_tokens = 256});
      engine->step();
      state.ResumeTiming();
    }
    engine->step();
    tokens += batch;
  }
  state.counters["tokens/s"] = benchmark::Counter(static_cast<double>(tokens), benchmark::Counter::kIsRate);
}

BENCHMARK_CAPTURE(decode, stories_attention, kStories, "attention")->Arg(1)->Arg(8)->Arg(32)->UseRealTime();
BENCHMARK_CAPTURE(decode, stories_mamba, kStories, "mamba")->Arg(1)->Arg(32)->UseRealTime();
BENCHMARK_CAPTURE(decode, mistral_attention, kMistral, "attention")
    ->Arg(1)
    ->Arg(16)
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(decode, mistral_mamba, kMistral, "mamba")->Arg(1)->Arg(16)->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace decode_bench
}  // namespace molt
