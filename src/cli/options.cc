#include "cli/options.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>

#include "base/error.h"

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
  const bool has_gpu = at::hasCUDA();
  if (device_name == "cuda") require(has_gpu, "--device cuda: no GPU that this build of molt can use was found");
  return device_name == "cuda" || (device_name.empty() && has_gpu) ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU);
}

at::ScalarType ComputeOptions::dtype() const {
  if (dtype_name.empty()) return device().is_cuda() ? at::kBFloat16 : at::kFloat;
  return dtype_name == "bfloat16" ? at::kBFloat16 : at::kFloat;
}

}  // namespace molt
