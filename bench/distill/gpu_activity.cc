#include "gpu_activity.h"

#include <torch/csrc/autograd/profiler_kineto.h>

#include <algorithm>
#include <map>
#include <utility>

namespace molt {

GpuActivity gpu_activity(const std::function<void()>& work) {
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

}  // namespace molt
