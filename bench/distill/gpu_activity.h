// What a GPU does while a function runs: how long it is busy, and with what.
#pragma once
#include <functional>
#include <string>
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
GpuActivity gpu_activity(const std::function<void()>& work);

}  // namespace molt
