#include "base/allocation.h"

#include <malloc.h>
#include <stdlib.h>

namespace molt {

void configure_allocation() {
  mallopt(M_MMAP_THRESHOLD, 1 << 20);
  setenv("THP_MEM_ALLOC_ENABLE", "1", /*overwrite=*/0);
}

}  // namespace molt
