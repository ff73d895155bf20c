// Counts the threads that did a fair part of some work, by the processor time that Linux books for each thread.
#pragma once
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <string>

namespace molt {

// Threads of this process by nanoseconds on a processor.
inline std::map<std::string, double> thread_times() {
  std::map<std::string, double> times;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream(task.path() / "schedstat") >> times[task.path().filename().string()];
  }
  return times;
}

// Threads that were busy for at least a fifth of the time of the busiest one while `work` ran.
inline int busy_threads(const std::function<void()>& work) {
  auto before = thread_times();
  work();
  auto spent = thread_times();
  double most = 0;
  for (auto& [thread, time] : spent) most = std::max(most, time -= before[thread]);
  return static_cast<int>(std::count_if(spent.begin(), spent.end(), [&](const auto& entry) { return entry.second > most / 5; }));
}

}  // namespace molt
