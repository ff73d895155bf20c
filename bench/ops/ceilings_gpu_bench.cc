// What a GPU reaches at most: the rate of a copy, read and written, and of a large product in bf16.
//   molt_ops_bench --benchmark_filter=ceiling
#include "support/cuda_rate.h"
#ifdef MOLT_CUDA
#include "support/device_timer.h"

namespace molt {
namespace ceilings_gpu_bench {

void product(benchmark::State& state) {
  constexpr std::int64_t size = 8192;
  const at::Tensor a = at::randn({size, size}, at::TensorOptions(at::kCUDA).dtype(at::kBFloat16)), b = at::randn_like(a);
  time_on_gpu(state, [&] { at::mm(a, b); });
  state.counters["FLOP/s"] = benchmark::Counter(2.0 * size * size * size, benchmark::Counter::kIsIterationInvariantRate);
}

const bool registered = on_cuda([] {
  constexpr std::int64_t floats = 1 << 28;
  register_rate("ceiling/copy", 2.0 * 4 * floats, [] {
    const at::Tensor from = at::ones({floats}, at::kCUDA), to = at::empty_like(from);
    return [=] { to.copy_(from); };
  });
  benchmark::RegisterBenchmark("ceiling/bf16_product_8192/cuda", product)->UseManualTime()->Unit(benchmark::kMillisecond);
});

}  // namespace ceilings_gpu_bench
}  // namespace molt
#endif
