// Rates of memory-bound work on a GPU, beside that of a copy in the same run. Benchmarks of a GPU are registered by
//   const bool registered = on_cuda([] { … });
// and report milliseconds, GB/s of the bytes that the operation cannot do without, and their share of the copy's rate.
#pragma once
#ifdef MOLT_CUDA
#include <ATen/Context.h>
#include <ATen/Functions.h>
#include <benchmark/benchmark.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "support/cuda_graph.h"

namespace molt {

template <class Register>
bool on_cuda(const Register& register_all) {
  if (at::hasCUDA()) register_all();
  return true;
}

// Seconds of one call of `work`, of `calls` that follow each other on the GPU. Behind one more that is not counted: it hides the
// time that the host takes to hand in the first of them, in which the GPU would have nothing to do.
inline double cuda_seconds(const std::function<void()>& work, int calls = 10) {
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream().stream();
  cudaEvent_t begin, end;
  cudaEventCreate(&begin);
  cudaEventCreate(&end);
  work();
  cudaEventRecord(begin, stream);
  for (int i = 0; i < calls; ++i) work();
  cudaEventRecord(end, stream);
  cudaEventSynchronize(end);
  float milliseconds = 0;
  cudaEventElapsedTime(&milliseconds, begin, end);
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  return milliseconds / 1e3 / calls;
}

// Bytes read and written in a second by a copy of 1 GiB.
inline double copy_rate() {
  static const double rate = [] {
    const at::Tensor from = at::ones({1 << 28}, at::kCUDA), to = at::empty_like(from);
    std::vector<double> seconds;
    for (int i = 0; i < 11; ++i) seconds.push_back(cuda_seconds([&] { to.copy_(from); }));
    std::nth_element(seconds.begin(), seconds.begin() + 5, seconds.end());
    return 2.0 * static_cast<double>(from.nbytes()) / seconds[5];
  }();
  return rate;
}

// Registers NAME. `prepare` makes the inputs, once the benchmark is chosen, and returns work of `calls` calls, of `bytes` each.
inline void register_rate_of(const std::string& name, double bytes, int calls, benchmark::TimeUnit unit,
                             const std::function<std::function<void()>()>& prepare) {
  benchmark::RegisterBenchmark(name.c_str(),
                               [=](benchmark::State& run) {
                                 const double copy = copy_rate();
                                 const std::function<void()> work = prepare();
                                 cuda_seconds(work, 3);
                                 for (auto unused : run) run.SetIterationTime(cuda_seconds(work) / calls);
                                 const auto total = bytes * static_cast<double>(run.iterations());
                                 run.counters["bytes/s"] = benchmark::Counter(total, benchmark::Counter::kIsRate);
                                 run.counters["of copy"] = benchmark::Counter(total / copy, benchmark::Counter::kIsRate);
                               })
      ->UseManualTime()
      ->Unit(unit)
      ->Iterations(20);
}

// NAME/cuda: every call is launched by itself.
inline void register_rate(const std::string& name, double bytes, const std::function<std::function<void()>()>& prepare) {
  register_rate_of(name + "/cuda", bytes, 1, benchmark::kMillisecond, prepare);
}

// NAME/cuda_graph: `calls` calls in a CUDA graph, without the host's part.
inline void register_graph_rate(const std::string& name, double bytes, int calls,
                                const std::function<std::function<void()>()>& prepare) {
  register_rate_of(name + "/cuda_graph", bytes, calls, benchmark::kMicrosecond, [=] { return captured(prepare, calls); });
}

}  // namespace molt
#endif
