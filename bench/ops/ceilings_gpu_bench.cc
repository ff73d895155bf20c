// What a GPU reaches at most: a copy's bytes, read and written, and a large product in bf16. The large copy is what rates of
// memory-bound work are given against; smaller ones, in a CUDA graph, show what short work loses to beginning and ending, by
// cudaMemcpy and by a kernel that multiplies. A product reaches less in the long run, when the power limit holds the clock down.
//   molt_ops_bench --benchmark_filter=ceiling
#include "support/cuda_rate.h"
#ifdef MOLT_CUDA
#include "support/device_timer.h"

namespace molt {
namespace ceilings_gpu_bench {

void copies_of(std::int64_t mebibytes) {
  const std::int64_t floats = mebibytes << 18;
  const double bytes = 2.0 * 4 * static_cast<double>(floats);
  const auto add = [=](const std::string& by, const std::function<void(at::Tensor to, const at::Tensor& from)>& move) {
    const std::string name = "ceiling/" + by + "_of_" + std::to_string(mebibytes) + "_MiB";
    const auto turns = std::max<std::int64_t>(2, 128 / mebibytes);
    register_graph_rate(name, bytes, static_cast<int>(turns), [=] {
      const at::Tensor from = at::ones({turns, floats}, at::kCUDA), to = at::empty_like(from);
      return [=, turn = 0]() mutable {
        move(to[turn], from[turn]);
        turn = (turn + 1) % static_cast<int>(turns);
      };
    });
  };
  add("copy", [](at::Tensor to, const at::Tensor& from) { to.copy_(from); });
  add("kernel", [](at::Tensor to, const at::Tensor& from) { at::mul_out(to, from, 2.0); });
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
  for (const std::int64_t mebibytes : {1, 16, 64, 1024}) copies_of(mebibytes);
  add_product("burst", 15);
  add_product("sustained", 600);
});

}  // namespace ceilings_gpu_bench
}  // namespace molt
#endif
