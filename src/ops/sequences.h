// Where each sequence of a pack begins and ends. Sequences lie end to end along the first dimension of a tensor, never padded.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace molt {

struct Sequences {
  at::Tensor cu_seqlens;              // int32 (sequences + 1) on the device of the data: 0, l0, l0 + l1, …
  std::vector<std::int32_t> offsets;  // the same numbers on the host, so that nothing waits for a copy
  std::int64_t max_length = 0;        // the longest sequence

  std::int64_t count() const { return offsets.empty() ? 0 : static_cast<std::int64_t>(offsets.size()) - 1; }
  std::int64_t tokens() const { return offsets.empty() ? 0 : offsets.back(); }
  std::int64_t length(std::int64_t sequence) const { return offsets[sequence + 1] - offsets[sequence]; }

  // From the lengths of the sequences (0 is allowed), with cu_seqlens on `device`.
  static Sequences of(const std::vector<std::int32_t>& lengths, at::Device device = at::kCPU);
};

}  // namespace molt
