// Packed attention on the GPU beside LibTorch's own calls: packed flash attention, and cuDNN's for sequences of equal length.
//   molt_ops_bench --benchmark_filter=attention_gpu
#include <ATen/Functions.h>
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>

#include "ops/attention/attention.h"
#include "support/device_timer.h"

namespace molt::ops {
namespace attention_gpu_bench {

constexpr std::int64_t kHeads = 32, kKvHeads = 8, kHeadSize = 128;

struct Case {
  std::vector<std::int32_t> lengths;
  Sequences sequences;
  at::Tensor q, k, v, gradient;
  std::optional<std::int64_t> window;
};

std::vector<std::int32_t> equal(std::int32_t sequences, std::int32_t length) {
  return std::vector<std::int32_t>(sequences, length);
}

// 37 sequences of 13 to 2161 tokens, 16384 in all.
std::vector<std::int32_t> uneven() {
  std::vector<std::int32_t> lengths;
  std::int32_t left = 16384;
  for (std::int32_t i = 0; i < 36; ++i) {
    lengths.push_back(i % 6 == 0 ? 1200 + 31 * i : 13 + 11 * (i * 7 % 29));
    left -= lengths.back();
  }
  lengths.push_back(left);
  return lengths;
}

Case make(const std::vector<std::int32_t>& lengths, std::optional<std::int64_t> window, bool differentiable) {
  at::manual_seed(1);
  const auto options = at::TensorOptions(at::kCUDA).dtype(at::kBFloat16);
  Case c;
  c.lengths = lengths;
  c.sequences = Sequences::of(lengths, at::kCUDA);
  c.window = window;
  const std::int64_t tokens = c.sequences.tokens();
  c.q = at::randn({tokens, kHeads, kHeadSize}, options).requires_grad_(differentiable);
  c.k = at::randn({tokens, kKvHeads, kHeadSize}, options).requires_grad_(differentiable);
  c.v = at::randn({tokens, kKvHeads, kHeadSize}, options).requires_grad_(differentiable);
  c.gradient = at::randn({tokens, kHeads, kHeadSize}, options);
  return c;
}

const double kScale = 1 / std::sqrt(kHeadSize);

at::Tensor by_molt(const Case& c) {
  return attention(c.q, c.k, c.v, c.sequences, kScale, c.window);
}

at::Tensor by_flash(const Case& c) {
  const auto left = c.window ? std::optional<std::int64_t>(*c.window - 1) : std::nullopt;
  const auto right = c.window ? std::optional<std::int64_t>(0) : std::nullopt;
  return std::get<0>(at::_flash_attention_forward(c.q, c.k, c.v, c.sequences.cu_seqlens, c.sequences.cu_seqlens,
                                                  c.sequences.max_length, c.sequences.max_length, 0.0, true, false, kScale, left,
                                                  right));
}

at::Tensor by_dense_cudnn(const Case& c) {
  const auto dense = [&](const at::Tensor& x) {
    return x.view({static_cast<std::int64_t>(c.lengths.size()), c.lengths[0], x.size(1), kHeadSize}).transpose(1, 2);
  };
  return std::get<0>(at::_scaled_dot_product_cudnn_attention(dense(c.q), dense(c.k), dense(c.v), std::nullopt,
                                                             c.q.requires_grad(), 0.0, true, false, kScale))
      .transpose(1, 2)
      .view(c.q.sizes());
}

using Attend = at::Tensor (*)(const Case&);

// Scores and weighted values over what each token sees: 4 heads head_size FLOPs a pair of tokens.
double flops(const Case& c) {
  double pairs = 0;
  for (const double length : c.lengths) {
    const double seen = std::min<double>(length, static_cast<double>(c.window.value_or(1 << 30)));
    pairs += seen * length - seen * (seen - 1) / 2;
  }
  return 4 * pairs * kHeads * kHeadSize;
}

void run(benchmark::State& state, Attend attend, const std::vector<std::int32_t>& lengths, std::int64_t window, bool backward) {
  if (!at::hasCUDA()) return state.SkipWithError("no GPU");
  const Case c = make(lengths, window > 0 ? std::optional(window) : std::nullopt, backward);
  time_on_gpu(state, [&] {
    if (!backward) return static_cast<void>(attend(c));
    for (const at::Tensor* leaf : {&c.q, &c.k, &c.v}) leaf->mutable_grad() = at::Tensor();
    attend(c).backward(c.gradient);
  });
  state.counters["FLOP/s"] = benchmark::Counter((backward ? 3.5 : 1) * flops(c), benchmark::Counter::kIsIterationInvariantRate);
}

void add(const std::string& shape, Attend attend, const std::string& by, const std::vector<std::int32_t>& lengths,
         std::int64_t window) {
  for (const bool backward : {false, true})
    benchmark::RegisterBenchmark(("attention_gpu/" + shape + (backward ? "/forward_backward/" : "/forward/") + by).c_str(),
                                 [=](benchmark::State& state) { run(state, attend, lengths, window, backward); })
        ->UseManualTime()
        ->Unit(benchmark::kMillisecond);
}

const bool registered = [] {
  const auto all = [](const std::string& shape, const std::vector<std::int32_t>& lengths, std::int64_t window) {
    add(shape, by_molt, "molt", lengths, window);
    const bool equal_lengths = std::count(lengths.begin(), lengths.end(), lengths[0]) == std::ssize(lengths);
    if (equal_lengths && window == 0) add(shape, by_dense_cudnn, "libtorch_cudnn", lengths, window);
    if (window == 0) add(shape, by_flash, "libtorch_flash", lengths, window);
  };
  all("1x16384", equal(1, 16384), 0);
  all("4x4096", equal(4, 4096), 0);
  all("1x16383", equal(1, 16383), 0);
  all("3x4096_1x4095", {4096, 4096, 4096, 4095}, 0);
  all("37_uneven", uneven(), 0);
  all("1x16384_window_1024", equal(1, 16384), 1024);
  all("37_uneven_window_1024", uneven(), 1024);
  return true;
}();

}  // namespace attention_gpu_bench
}  // namespace molt::ops
