#include "model/step.h"

#include <c10/core/ScalarType.h>

namespace molt {

std::int64_t CacheEntry::bytes() const {
  auto result = static_cast<std::int64_t>(c10::elementSize(dtype));
  for (const std::int64_t size : shape) result *= size;
  return result;
}

}  // namespace molt
