#include "ops/sequences.h"

#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <limits>

#include "base/error.h"

namespace molt {

Sequences Sequences::of(const std::vector<std::int32_t>& lengths, at::Device device) {
  Sequences result;
  result.offsets.reserve(lengths.size() + 1);
  result.offsets.push_back(0);
  for (const std::int32_t length : lengths) {
    MOLT_CHECK(length >= 0, "a sequence of ", length, " tokens");
    MOLT_CHECK(result.offsets.back() <= std::numeric_limits<std::int32_t>::max() - length, "more tokens than int32 counts");
    result.offsets.push_back(result.offsets.back() + length);
    result.max_length = std::max<std::int64_t>(result.max_length, length);
  }
  result.cu_seqlens = at::from_blob(result.offsets.data(), {static_cast<std::int64_t>(result.offsets.size())}, at::kInt)
                          .to(at::TensorOptions(device).dtype(at::kInt), /*non_blocking=*/false, /*copy=*/true);
  return result;
}

}  // namespace molt
