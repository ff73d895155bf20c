// Head and loss in chunks beside the same over whole logits in LibTorch's calls, forward + backward.
//   molt_ops_bench --benchmark_filter=^loss         on the CPU, fp32
//   molt_ops_bench --benchmark_filter=gpu_loss      on a GPU, bf16, gradients of the head added in fp32; bytes beyond weights and
//                                                   gradients
#include <ATen/Context.h>
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <benchmark/benchmark.h>
#include <c10/core/CachingDeviceAllocator.h>

#include "ops/linear_loss/linear_loss.h"
#include "support/device_timer.h"

namespace molt::ops {
namespace linear_loss_bench {

struct Problem {
  at::Tensor hidden, weight, targets, weights;
  TeacherHead teacher;

  // Arguments: tokens, hidden, vocabulary, share of tokens with loss in percent.
  Problem(const benchmark::State& run, at::TensorOptions options) {
    at::manual_seed(1);
    const std::int64_t tokens = run.range(0), hidden_size = run.range(1), vocabulary = run.range(2);
    hidden = at::randn({tokens, hidden_size}, options).requires_grad_(true);
    weight = at::randn({vocabulary, hidden_size}, options).mul_(0.05).requires_grad_(true);
    teacher = {at::randn({tokens, hidden_size}, options), at::randn({vocabulary, hidden_size}, options).mul_(0.05)};
    targets = at::randint(vocabulary, {tokens}, options.dtype(at::kLong));
    weights = (at::arange(tokens, options.dtype(at::kLong)) % 100).lt(run.range(3)).to(at::kFloat);
  }

  // The teacher as its k largest probabilities on disk would be.
  void shorten(std::int64_t k) {
    const TopProbabilities top = top_probabilities(teacher.hidden, teacher.weight, k);
    teacher = {{}, {}, {top.ids.to(at::kInt), top.log_probs.to(at::kHalf)}};
  }
};

void count(benchmark::State& run, const TeacherHead& teacher, const LossMix& mix) {
  // Three products with the student's head, one with the teacher's.
  const double products = mix.diverges() && teacher.weight.defined() ? 8 : 6;
  const auto elements = static_cast<double>(run.range(0) * run.range(1) * run.range(2));
  run.counters["FLOP/s"] = benchmark::Counter(products * elements * static_cast<double>(run.range(3)) / 100,
                                              benchmark::Counter::kIsIterationInvariantRate);
}

// k: of the teacher's largest probabilities; 0: its head is at hand.
void loss(benchmark::State& run, bool whole, LossMix mix, std::int64_t k = 0) {
  Problem p(run, at::TensorOptions());
  if (k > 0) p.shorten(k);
  for (auto unused : run) {
    p.hidden.mutable_grad() = at::Tensor();
    p.weight.mutable_grad() = at::Tensor();
    (whole ? linear_loss_composite(p.hidden, p.weight, p.targets, p.weights, mix, p.teacher)
           : linear_loss(p.hidden, p.weight, p.targets, p.weights, mix, p.teacher))
        .sum.backward();
  }
  count(run, p.teacher, mix);
}

void gpu_loss(benchmark::State& run, LossMix mix, std::int64_t k = 0) {
  if (!at::hasCUDA()) return run.SkipWithError("no GPU");
  Problem p(run, at::TensorOptions(at::Device(at::kCUDA, 0)).dtype(at::kBFloat16));
  if (k > 0) p.shorten(k);
  p.weight.set_grad_dtype(at::kFloat);
  p.weight.mutable_grad() = at::zeros(p.weight.sizes(), p.weight.options().dtype(at::kFloat).requires_grad(false));
  const LossOptions options{p.weights.nonzero().squeeze(1), true};
  const auto step = [&] {
    p.hidden.mutable_grad() = at::Tensor();
    linear_loss(p.hidden, p.weight, p.targets, p.weights, mix, p.teacher, options).sum.backward();
  };
  auto* const memory = c10::getDeviceAllocator(at::kCUDA);
  const auto bytes = [&] {
    return memory->getDeviceStats(0).allocated_bytes[static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE)];
  };
  const auto wait = [&] { p.hidden.grad().sum().item<double>(); };
  for (int i = 0; i < 3; ++i) step();
  wait();
  const auto before = bytes().current;
  memory->resetPeakStats(0);
  time_on_gpu(run, step);
  run.counters["bytes_beyond"] = static_cast<double>(bytes().peak - before);
  count(run, p.teacher, mix);
}

void shapes(benchmark::internal::Benchmark* b) {
  b->Args({2048, 128, 512, 100})->Args({2048, 128, 512, 40})->Args({1024, 768, 32000, 100});
  b->Unit(benchmark::kMillisecond)->UseRealTime();
}
BENCHMARK_CAPTURE(loss, cross_entropy_molt, false, {.cross_entropy = 1})->Apply(shapes);
BENCHMARK_CAPTURE(loss, cross_entropy_libtorch, true, {.cross_entropy = 1})->Apply(shapes);
BENCHMARK_CAPTURE(loss, reverse_kl_molt, false, {.reverse_kl = 1})->Apply(shapes);
BENCHMARK_CAPTURE(loss, reverse_kl_libtorch, true, {.reverse_kl = 1})->Apply(shapes);
BENCHMARK_CAPTURE(loss, reverse_kl_top_64, false, {.reverse_kl = 1}, 64)->Apply(shapes);

void gpu_shapes(benchmark::internal::Benchmark* b) {
  b->Args({8192, 5120, 131072, 100})
      ->Args({16384, 5120, 131072, 100})
      ->Unit(benchmark::kMillisecond)
      ->UseManualTime()
      ->Iterations(10);
}
BENCHMARK_CAPTURE(gpu_loss, cross_entropy, {.cross_entropy = 1})->Apply(gpu_shapes);
BENCHMARK_CAPTURE(gpu_loss, reverse_kl, {.reverse_kl = 1})->Apply(gpu_shapes);
BENCHMARK_CAPTURE(gpu_loss, reverse_kl_top_64, {.reverse_kl = 1}, 64)->Apply(gpu_shapes);
BENCHMARK_CAPTURE(gpu_loss, reverse_kl_top_256, {.reverse_kl = 1}, 256)->Apply(gpu_shapes);
BENCHMARK_CAPTURE(gpu_loss, mix, {.cross_entropy = 0.3, .forward_kl = 0.3, .reverse_kl = 0.4})->Apply(gpu_shapes);

}  // namespace linear_loss_bench
}  // namespace molt::ops
