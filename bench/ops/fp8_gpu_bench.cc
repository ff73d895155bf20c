// Products of frozen weights in eight bits on a GPU, beside bf16's: two of the 15B teacher's projections, 16384 tokens.
// `rounded`: both operands were rounded before; `exact`: the same with sums in fp32 throughout, which fp8_linear does not ask
// for.
//   molt_ops_bench --benchmark_filter=fp8_gpu
#include "support/cuda_rate.h"
#ifdef MOLT_CUDA
#include "ops/fp8_linear/fp8_linear.h"
#include "support/device_timer.h"

namespace molt::ops {
namespace fp8_gpu_bench {

constexpr std::int64_t kTokens = 16384;

at::Tensor random(std::int64_t rows, std::int64_t columns) {
  return at::randn({rows, columns}, at::TensorOptions(at::kCUDA).dtype(at::kBFloat16));
}

using Product =
    std::function<void(const at::Tensor& x, const at::Tensor& weight, const Fp8Rows& rounded_x, const Fp8Rows& rounded_weight)>;

void add(const std::string& name, std::int64_t in, std::int64_t out, const Product& product) {
  const auto shape = std::to_string(kTokens) + "x" + std::to_string(in) + "x" + std::to_string(out);
  benchmark::RegisterBenchmark(("fp8_gpu/" + shape + "/" + name).c_str(),
                               [=](benchmark::State& state) {
                                 const at::Tensor x = random(kTokens, in), weight = random(out, in);
                                 const Fp8Rows rounded_x = fp8_rows(x), rounded_weight = fp8_rows(weight);
                                 time_on_gpu(state, [&] { product(x, weight, rounded_x, rounded_weight); });
                                 state.counters["FLOP/s"] = benchmark::Counter(2.0 * static_cast<double>(kTokens * in * out),
                                                                               benchmark::Counter::kIsIterationInvariantRate);
                               })
      ->UseManualTime()
      ->Unit(benchmark::kMillisecond);
}

void rounded_product(const Fp8Rows& x, const Fp8Rows& weight, bool fast) {
  at::_scaled_mm(x.values, weight.values.t(), x.scales, weight.scales.t(), std::nullopt, std::nullopt, at::kBFloat16, fast);
}

const bool registered = on_cuda([] {
  for (const auto& [in, out] : {std::pair{5120, 28672}, {14336, 5120}}) {
    add("bf16", in, out, [](const auto& x, const auto& weight, const auto&, const auto&) { at::mm(x, weight.t()); });
    add("rounded", in, out,
        [](const auto&, const auto&, const auto& x, const auto& weight) { rounded_product(x, weight, true); });
    add("exact", in, out, [](const auto&, const auto&, const auto& x, const auto& weight) { rounded_product(x, weight, false); });
    add("linear", in, out, [](const auto& x, const auto&, const auto&, const auto& weight) { fp8_linear(x, weight); });
    register_rate("fp8_gpu/rows_of_" + std::to_string(in), 3.0 * kTokens * in,
                  [in] { return [x = random(kTokens, in)] { fp8_rows(x); }; });
  }
});

}  // namespace fp8_gpu_bench
}  // namespace molt::ops
#endif
