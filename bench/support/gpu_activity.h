// What a GPU does while a function runs, as LibTorch's profiler sees it: how long it is busy, and with which kernels.
#pragma once
#include <benchmark/benchmark.h>
#include <torch/csrc/autograd/profiler_kineto.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace molt {

struct GpuActivity {
  double span = 0,
         busy = 0;  // seconds from the first kernel's start to the last one's end; of those with a kernel or copy at work
  struct Kernel {
    std::string name;
    double seconds = 0;
    std::int64_t calls = 0;
  };
  std::vector<Kernel> kernels;  // the longest first

  double idle_share() const { return span > 0 ? 1 - busy / span : 0; }
};

// Runs `work`, which must end with all of its kernels done.
inline GpuActivity gpu_activity(const std::function<void()>& work) {
  using namespace torch::autograd::profiler;
  using torch::profiler::impl::ActivityType;
  const torch::profiler::impl::ProfilerConfig config(torch::profiler::impl::ProfilerState::KINETO);
  const std::set<ActivityType> activities = {ActivityType::CPU, ActivityType::CUDA};
  prepareProfiler(config, activities);
  enableProfiler(config, activities);
  work();
  const std::unique_ptr<ProfilerResult> result = disableProfiler();

  std::vector<std::pair<double, double>> spans;
  std::map<std::string, GpuActivity::Kernel> kernels;
  for (const KinetoEvent& event : result->events()) {
    if (event.deviceType() != c10::DeviceType::CUDA || event.durationNs() == 0) continue;
    const double begin = 1e-9 * static_cast<double>(event.startNs() - result->trace_start_ns());
    const double seconds = 1e-9 * static_cast<double>(event.durationNs());
    spans.emplace_back(begin, begin + seconds);
    GpuActivity::Kernel& kernel = kernels[event.name()];
    kernel.seconds += seconds;
    ++kernel.calls;
  }
  std::sort(spans.begin(), spans.end());
  GpuActivity activity;
  double reached = spans.empty() ? 0 : spans.front().first;
  for (const auto& [begin, end] : spans) {
    activity.busy += std::max(0.0, end - std::max(begin, reached));
    reached = std::max(reached, end);
  }
  if (!spans.empty()) activity.span = reached - spans.front().first;
  for (auto& [name, kernel] : kernels) {
    kernel.name = name;
    activity.kernels.push_back(std::move(kernel));
  }
  std::sort(activity.kernels.begin(), activity.kernels.end(), [](const auto& a, const auto& b) { return a.seconds > b.seconds; });
  return activity;
}

// Runs `work` as gpu_activity does, `calls` passes of what is measured; the share of the time in which the GPU idles becomes a
// counter, and the longest kernels' times and calls a pass go to standard error.
inline void report_gpu_activity(benchmark::State& state, int calls, const std::function<void()>& work) {
  constexpr std::size_t kShown = 24;
  const GpuActivity activity = gpu_activity(work);
  state.counters["idle_share"] = activity.idle_share();
  for (std::size_t i = 0; i < std::min(activity.kernels.size(), kShown); ++i) {
    const GpuActivity::Kernel& kernel = activity.kernels[i];
    std::fprintf(stderr, "%9.3f ms %8.1f x  %.110s\n", 1e3 * kernel.seconds / calls, static_cast<double>(kernel.calls) / calls,
                 kernel.name.c_str());
  }
}

}  // namespace molt
