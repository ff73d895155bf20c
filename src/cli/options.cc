#include "cli/options.h"

#include <ATen/Parallel.h>

#include "base/error.h"
#include "ops/device.h"

namespace molt {

void set_threads(std::int64_t threads) {
  require(threads >= 0, "--threads: found ", threads, ", expected 0 or more");
  if (threads > 0) at::set_num_threads(static_cast<int>(threads));
}

void ComputeOptions::declare(Arguments& arguments) {
  arguments.choice("--device", device_name, {"cpu", "cuda"}, "Where to compute (default: cuda when there is a GPU)");
  arguments.choice("--dtype", dtype_name, {"float32", "bfloat16"},
                   "Type of weights and activations (default: float32 on cpu, bfloat16 on cuda)");
  arguments.option("--threads", threads, "CPU threads, 0 for every core");
}

at::Device ComputeOptions::device() const {
  set_threads(threads);
  return device_of(device_name.empty() ? "auto" : device_name, "--device");
}

at::ScalarType ComputeOptions::dtype() const {
  return dtype_of(dtype_name.empty() ? "auto" : dtype_name, device());
}

}  // namespace molt
