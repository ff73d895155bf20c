// The selective scan on the GPU at the shapes of the published 15B teacher and at small ones: bfloat16 tokens, z, B and C slices
// of one projection, the gate and the skip included.
//   molt_ops_bench --benchmark_filter=scan/cuda
// `share` is the part of the time that the exponentials alone take at 16 a cycle and multiprocessor of an H200 (0.26 ms for 16384
// tokens of 4096 channels, once; the backward pass has no such floor of its own and is given against the same).
#include <ATen/Functions.h>
#include <benchmark/benchmark.h>

#include <numeric>

#include "ops/selective_scan/selective_scan.h"
#include "support/device_timer.h"

namespace molt::ops {
namespace scan_gpu_bench {

constexpr std::int64_t kState = 16, kRepeat = 4;

// 37 sequences of 50 to 1074 tokens, 16384 in all.
std::vector<std::int32_t> uneven() {
  std::vector<std::int32_t> lengths;
  for (std::int32_t i = 0; i < 36; ++i) lengths.push_back(50 + i * 377 % 800);
  lengths.push_back(16384 - std::accumulate(lengths.begin(), lengths.end(), 0));
  return lengths;
}

ScanInput input(std::int64_t tokens, std::int64_t d_inner, bool differentiable) {
  at::manual_seed(1);
  const auto floats = at::TensorOptions(at::kCUDA).dtype(at::kFloat), values = floats.dtype(at::kBFloat16);
  const std::int64_t d_xb = d_inner / kRepeat;
  const at::Tensor projection = at::randn({tokens, 2 * d_inner + d_xb}, values);
  ScanInput in{.x = at::randn({tokens, d_xb}, values),
               .dt = at::randn({tokens, d_inner}, values),
               .dt_bias = at::randn({d_inner}, floats) - 4,
               .A_log = at::arange(1, kState + 1, floats).log().expand({d_inner, kState}).contiguous(),
               .B = projection.narrow(1, d_inner, d_xb),
               .C = projection.narrow(1, d_inner + d_xb, d_inner),
               .D = at::ones({d_inner}, floats),
               .z = projection.narrow(1, 0, d_inner),
               .initial_state = {}};
  if (differentiable) {
    for (at::Tensor* field : {&in.x, &in.dt, &in.dt_bias, &in.A_log, &in.B, &in.C, &in.D, &in.z}) {
      *field = field->detach().requires_grad_(true);
    }
  }
  return in;
}

void run(benchmark::State& state, const std::vector<std::int32_t>& lengths, std::int64_t d_inner, bool backward) {
  if (!at::hasCUDA()) return state.SkipWithError("no GPU");
  const Sequences sequences = Sequences::of(lengths, at::kCUDA);
  const ScanInput in = input(sequences.tokens(), d_inner, backward);
  const at::Tensor gradient = at::randn_like(in.dt);
  time_on_gpu(state, [&] {
    const ScanOutput out = selective_scan(in, sequences);
    if (!backward) return;
    for (const at::Tensor* field : {&in.x, &in.dt, &in.dt_bias, &in.A_log, &in.B, &in.C, &in.D, &in.z}) {
      field->mutable_grad() = at::Tensor();
    }
    out.y.backward(gradient);
  });
  const double work = static_cast<double>(sequences.tokens() * d_inner) / (16384.0 * 4096);
  state.counters["share"] = benchmark::Counter(0.26e-3 * work, benchmark::Counter::kIsIterationInvariantRate);
}

const bool registered = [] {
  const auto add = [](const std::string& shape, const std::vector<std::int32_t>& lengths, std::int64_t d_inner) {
    for (const bool backward : {false, true}) {
      const std::string name = "scan/cuda/" + shape + (backward ? "/forward_backward" : "/forward");
      benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) { run(state, lengths, d_inner, backward); })
          ->UseManualTime()
          ->Unit(benchmark::kMillisecond);
    }
  };
  add("1x16384_d4096", {16384}, 4096);
  add("4x4096_d4096", std::vector<std::int32_t>(4, 4096), 4096);
  add("37_uneven_d4096", uneven(), 4096);
  for (const std::int64_t d_inner : {512, 1024}) {
    add("1x2048_d" + std::to_string(d_inner), {2048}, d_inner);
    add("1x131072_d" + std::to_string(d_inner), {131072}, d_inner);
  }
  return true;
}();

}  // namespace scan_gpu_bench
}  // namespace molt::ops
