// Counts the threads that did a fair part of some work, by the processor time that Linux books for each thread.
#pragma once
#include <ATen/Parallel.h>

#include <algorithm>
#include <chrono>
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

// From now on LibTorch has as many threads as a test's work is enough for on a large machine, too.
inline int few_threads() {
  at::set_num_threads(std::min(at::get_num_threads(), 4));
  return at::get_num_threads();
}

// Threads that were busy for at least a fifth of the time of the busiest one while `work` ran, again and again for as long as
// Linux, which books the time of a thread that is at work every 10 ms at worst, takes to tell them apart.
inline int busy_threads(const std::function<void()>& work) {
  using Clock = std::chrono::steady_clock;
  work();  // begins the threads
  auto before = thread_times();
  const auto end = Clock::now() + std::chrono::milliseconds(200);
  do work();
  while (Clock::now() < end);
  auto spent = thread_times();
  double most = 0;
  for (auto& [thread, time] : spent) most = std::max(most, time -= before[thread]);
  return static_cast<int>(std::count_if(spent.begin(), spent.end(), [&](const auto& entry) { return entry.second > most / 5; }));
}

}  // namespace molt
