// A frozen teacher's forward pass over 16,384 tokens, 10 layers of the published 15B teacher's shape with random weights: in bf16
// and with its projections in eight bits.
//   molt_model_bench --benchmark_filter=teacher_gpu
// kl: KL(bf16 || this) of 256 tokens' predictions, in nats a token, of random weights whose head makes predictions of about the
// entropy of a language model's.
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <benchmark/benchmark.h>
#include <c10/core/GradMode.h>

#include <memory>

#include "model/mixers/attention/attention.h"
#include "model/random_model.h"
#include "support/device_timer.h"

namespace molt {

namespace fp8_gpu_bench {

ModelConfig config() {
  auto attention = std::make_shared<AttentionConfig>();
  attention->heads = 32;
  attention->head_groups = 8;
  attention->head_size = 128;
  BlockConfig block;
  block.mlp.intermediate_size = 14336;
  ModelConfig model;
  model.hidden_size = 5120;
  model.vocabulary = 131072;
  for (int i = 0; i < 10; ++i) model.blocks.push_back(block.with_mixer(attention));
  return model;
}

at::Tensor predictions(const Model& model, const PackedBatch& batch) {
  const at::Tensor hidden = model.forward(batch).narrow(0, batch.size() - 256, 256);
  const at::Tensor logits = model.logits(hidden).to(at::kFloat);
  return (logits / logits.std() * 4.0).log_softmax(-1);
}

void run(benchmark::State& state, bool fp8) {
  if (!at::hasCUDA()) return state.SkipWithError("no GPU");
  const c10::NoGradGuard no_grad;
  const std::unique_ptr<Model> model = random_model(config(), at::Device(at::kCUDA, 0), at::kBFloat16, 1);
  PackedBatch::Sample sample;
  for (int i = 0; i < 16384; ++i) sample.tokens.push_back(i * 7919 % 131072);
  const PackedBatch batch = PackedBatch::of({sample}).to(at::kCUDA);
  const at::Tensor whole = predictions(*model, batch);
  if (fp8) model->to_fp8();
  time_on_gpu(state, [&] { model->forward(batch); });
  state.counters["kl"] = (whole.exp() * (whole - predictions(*model, batch))).sum(-1).mean().item<double>();
}
BENCHMARK_CAPTURE(run, bf16, false)->Name("teacher_gpu/bf16")->UseManualTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(run, fp8, true)->Name("teacher_gpu/fp8")->UseManualTime()->Unit(benchmark::kMillisecond);

}  // namespace fp8_gpu_bench

}  // namespace molt
