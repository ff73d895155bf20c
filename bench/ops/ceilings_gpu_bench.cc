// What a GPU reaches at most: a copy's bytes, read and written, and a large product in bf16. The copy is what rates of
// memory-bound work are given against; a kernel over fewer bytes, in a CUDA graph, shows what short work loses to beginning and
// ending. A product reaches less in the long run, when the power limit holds the clock down.
//   molt_ops_bench --benchmark_filter=ceiling
#include "support/cuda_rate.h"
#ifdef MOLT_CUDA
#include "support/device_timer.h"

namespace molt {
namespace ceilings_gpu_bench {

constexpr std::int64_t kMebibyte = 1 << 18;  // in float32

void add_kernel(std::int64_t mebibytes) {
  const std::int64_t turns = std::max<std::int64_t>(2, 128 / mebibytes), floats = mebibytes * kMebibyte;
  register_graph_rate("ceiling/kernel_of_" + std::to_string(mebibytes) + "_MiB", 2.0 * 4 * static_cast<double>(floats),
                      static_cast<int>(turns), [=] {
                        const at::Tensor from = at::ones({turns, floats}, at::kCUDA), to = at::empty_like(from);
                        return [=, turn = std::int64_t{0}]() mutable {
                          at::Tensor row = to[turn];
                          at::neg_out(row, from[turn]);
                          turn = (turn + 1) % turns;
                        };
                      });
}

void add_copy(std::int64_t mebibytes) {
  const std::int64_t floats = mebibytes * kMebibyte;
  register_rate("ceiling/copy_of_" + std::to_string(mebibytes) + "_MiB", 2.0 * 4 * static_cast<double>(floats), [=] {
    const at::Tensor from = at::ones({floats}, at::kCUDA), to = at::empty_like(from);
    return [=] { to.copy_(from); };
  });
}

void product(benchmark::State& state) {
  constexpr std::int64_t size = 8192;
  const at::Tensor a = at::randn({size, size}, at::TensorOptions(at::kCUDA).dtype(at::kBFloat16)), b = at::randn_like(a);
  time_on_gpu(state, [&] { at::mm(a, b); });
  state.counters["FLOP/s"] = benchmark::Counter(2.0 * size * size * size, benchmark::Counter::kIsIterationInvariantRate);
}

void add_product(const std::string& name, int products) {
  benchmark::RegisterBenchmark(("ceiling/bf16_product_8192/" + name).c_str(), product)
      ->UseManualTime()
      ->Iterations(products)
      ->Unit(benchmark::kMillisecond);
}

const bool registered = on_cuda([] {
  add_copy(1024);
  for (const std::int64_t mebibytes : {1, 16, 64, 1024}) add_kernel(mebibytes);
  add_product("burst", 15);
  add_product("sustained", 600);
});

}  // namespace ceilings_gpu_bench
}  // namespace molt
#endif
