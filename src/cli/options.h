// Options that mean the same in every command.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <string>

#include "cli/arguments.h"

namespace molt {

// Sets the number of CPU threads; 0: every core. UserError for a negative number.
void set_threads(std::int64_t threads);

// Of --accept-changes.
inline constexpr const char* accept_changes_help = "Go on with other settings, data or models than the run was left with";

// --device, --dtype, --threads. `device` and `dtype` are read after parsing.
struct ComputeOptions {
  std::string device_name;   // "cpu", "cuda"; empty: cuda when there is one
  std::string dtype_name;    // "float32", "bfloat16"; empty: float32 on the CPU, bfloat16 on a GPU
  std::int64_t threads = 0;  // 0: every core

  void declare(Arguments& arguments);
  // Sets the number of threads; UserError for a GPU that is not there.
  at::Device device() const;
  at::ScalarType dtype() const;
};

}  // namespace molt
