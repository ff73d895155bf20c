// Head and loss in chunks beside the same over whole logits in LibTorch's calls, forward + backward.
#include <ATen/Functions.h>
#include <benchmark/benchmark.h>

#include "ops/linear_loss/linear_loss.h"

namespace molt::ops {
namespace linear_loss_bench {

using Loss = LossResult (*)(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&, const LossMix&,
                            const TeacherHead&);

// Arguments: tokens, hidden, vocabulary, share of tokens with loss in percent.
void loss(benchmark::State& run, Loss function, LossMix mix) {
  at::manual_seed(1);
  const std::int64_t tokens = run.range(0), hidden_size = run.range(1), vocabulary = run.range(2);
  const at::Tensor hidden = at::randn({tokens, hidden_size}).requires_grad_(true);
  const at::Tensor weight = at::randn({vocabulary, hidden_size}).mul_(0.05).requires_grad_(true);
  const TeacherHead teacher{at::randn({tokens, hidden_size}), at::randn({vocabulary, hidden_size}) * 0.05};
  const at::Tensor targets = at::randint(vocabulary, {tokens}, at::kLong);
  const at::Tensor weights = (at::arange(tokens) % 100).lt(run.range(3)).to(at::kFloat);
  for (auto unused : run) {
    hidden.mutable_grad() = at::Tensor();
    weight.mutable_grad() = at::Tensor();
    function(hidden, weight, targets, weights, mix, teacher).sum.backward();
  }
  const double products = mix.reverse_kl != 0 ? 8 : 6;  // three products with the student's head, one with the teacher's
  run.counters["FLOP/s"] = benchmark::Counter(products * tokens * run.range(3) / 100 * hidden_size * vocabulary,
                                              benchmark::Counter::kIsIterationInvariantRate);
}

void shapes(benchmark::internal::Benchmark* b) {
  b->Args({2048, 128, 512, 100})->Args({2048, 128, 512, 40})->Args({1024, 768, 32000, 100});
  b->Unit(benchmark::kMillisecond)->UseRealTime();
}
BENCHMARK_CAPTURE(loss, cross_entropy_molt, linear_loss, {.cross_entropy = 1})->Apply(shapes);
BENCHMARK_CAPTURE(loss, cross_entropy_libtorch, linear_loss_composite, {.cross_entropy = 1})->Apply(shapes);
BENCHMARK_CAPTURE(loss, reverse_kl_molt, linear_loss, {.reverse_kl = 1})->Apply(shapes);
BENCHMARK_CAPTURE(loss, reverse_kl_libtorch, linear_loss_composite, {.reverse_kl = 1})->Apply(shapes);

}  // namespace linear_loss_bench
}  // namespace molt::ops
