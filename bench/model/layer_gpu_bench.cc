// Forward and backward, with the gradients of weights, of one layer of the published 15B teacher and of its Mamba layer on the
// GPU: the whole layer, and its mixer half alone (norm, projections, core, residual).
//   molt_model_bench --benchmark_filter=layer_gpu
// Standard error has the longest kernels of a pass.
// FLOP/s count 6 a weight and token, and of attention's scores and sums the half that is not masked, backward twice forward.
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <benchmark/benchmark.h>

#include <memory>
#include <string>
#include <vector>

#include "model/block.h"
#include "model/mixers/attention/attention.h"
#include "model/mixers/mamba/mamba.h"
#include "ops/rms_norm/rms_norm.h"
#include "support/device_timer.h"
#include "support/gpu_activity.h"

namespace molt {

namespace layer_gpu_bench {

constexpr std::int64_t kHidden = 5120;
constexpr int kPasses = 40;  // timed, and as many again under the profiler: long enough for the power limit to settle the clock

std::unique_ptr<MixerConfig> attention() {
  auto config = std::make_unique<AttentionConfig>();
  config->heads = 32;
  config->head_groups = 8;
  config->head_size = 128;
  return config;
}

std::unique_ptr<MixerConfig> mamba() {
  auto config = std::make_unique<MambaConfig>();
  config->d_inner = 4096;
  config->d_xb = 1024;
  config->state_size = 16;
  config->dt_rank = 16;
  return config;
}

// bf16 on the GPU, fp32 where the mixer insists.
void fill(Block& block) {
  block.visit("", [&](const std::string& name, at::Tensor& value) {
    const std::string own = name.substr(1);  // below the empty prefix
    const auto options = at::TensorOptions(at::kCUDA).dtype(block.keeps_fp32(own) ? at::kFloat : at::kBFloat16);
    value = at::empty(value.sizes(), options);
    if (value.dim() == 1 || own.ends_with("A_log"))
      value.fill_(own.ends_with("bias") ? -4 : own.ends_with("A_log") ? 0.5 : 1);
    else
      value.normal_(0, 0.02);
  });
}

PackedBatch pack(std::int64_t sequences, std::int64_t length, const Block& block) {
  PackedBatch::Sample sample;
  sample.tokens.assign(length, 1);
  PackedBatch batch = PackedBatch::of(std::vector<PackedBatch::Sample>(sequences, sample)).to(at::kCUDA);
  if (block.mixer().rotary_width() > 0)
    batch.rotary = ops::rotary_table({ops::rotary_frequencies(block.mixer().rotary_width(), 1e6, at::kCUDA)}, batch.positions);
  return batch;
}

void run(benchmark::State& state, const std::shared_ptr<MixerConfig>& mixer, bool whole) {
  if (!at::hasCUDA()) return state.SkipWithError("no GPU");
  ModelConfig model;
  model.hidden_size = kHidden;
  BlockConfig config;
  config.mlp.intermediate_size = 14336;
  Block block(config.with_mixer(mixer), model);
  fill(block);
  auto buffers = flatten_trainable([&](const ParameterVisitor& v) { block.visit("", v); },
                                   [&](const std::string& name) { return whole || name.find("mlp") == std::string::npos; });
  for (FlatBuffer& buffer : buffers) zero_gradients(buffer);

  const std::int64_t sequences = state.range(0), length = state.range(1);
  const PackedBatch batch = pack(sequences, length, block);
  const at::Tensor hidden =
      at::randn({batch.size(), kHidden}, at::TensorOptions(at::kCUDA).dtype(at::kBFloat16)).requires_grad_(true);
  const at::Tensor gradient = at::randn_like(hidden);
  const auto pass = [&] {
    hidden.mutable_grad() = at::Tensor();
    if (whole) return block.forward(hidden, batch, Recompute::none, "", nullptr).backward(gradient);
    const auto [normed, residual] = ops::branch_rms_norm(hidden, block.mixer_norm, 1e-5);
    (residual + block.mixer().forward(normed, batch)).backward(gradient);
  };
  time_on_gpu(state, pass);
  const c10::impl::VirtualGuardImpl device(c10::kCUDA);
  report_gpu_activity(state, kPasses, [&] {
    for (int i = 0; i < kPasses; ++i) pass();
    device.synchronizeDevice(0);
  });

  double weights = 0;
  for (const FlatBuffer& buffer : buffers)
    for (const FlatBuffer::Piece& piece : buffer.pieces) weights += static_cast<double>(piece.value.numel());
  const double tokens = static_cast<double>(sequences * length);
  const double scores = mixer->type() == "attention" ? 3 * 2.0 * static_cast<double>(length) * 4096 * tokens : 0;
  state.counters["FLOP/s"] = benchmark::Counter(6 * weights * tokens + scores, benchmark::Counter::kIsIterationInvariantRate);
}

void shapes(benchmark::internal::Benchmark* b) {
  b->Args({1, 16384})
      ->Args({4, 4096})
      ->ArgNames({"sequences", "tokens"})
      ->UseManualTime()
      ->Iterations(kPasses)
      ->Unit(benchmark::kMillisecond);
}
BENCHMARK_CAPTURE(run, attention, attention(), true)->Name("layer_gpu/attention")->Apply(shapes);
BENCHMARK_CAPTURE(run, mamba, mamba(), true)->Name("layer_gpu/mamba")->Apply(shapes);
BENCHMARK_CAPTURE(run, attention, attention(), false)->Name("layer_gpu/attention_mixer_half")->Apply(shapes);
BENCHMARK_CAPTURE(run, mamba, mamba(), false)->Name("layer_gpu/mamba_mixer_half")->Apply(shapes);

}  // namespace layer_gpu_bench

}  // namespace molt
