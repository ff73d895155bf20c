#include "ops/clear_begun.h"

#include <ATen/Functions.h>

namespace molt::ops {

void clear_begun(const at::Tensor& cache, const at::Tensor& slots, const at::Tensor& context_lens) {
  const at::Tensor begun = context_lens.cpu(), places = slots.cpu().to(at::kLong);
  for (std::int64_t i = 0; i < begun.numel(); ++i) {
    if (begun.const_data_ptr<std::int32_t>()[i] == 0) cache.select(0, places.const_data_ptr<std::int64_t>()[i]).zero_();
  }
}

}  // namespace molt::ops
