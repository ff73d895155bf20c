// Memory of LibTorch's tensors on the CPU. A training step makes and drops the same tensors of megabytes over and over; a block
// that goes back to the system is cleared by the kernel page by page when it is mapped again, which took a third of a step.
#pragma once
#include <cstddef>

namespace molt::ops {

// From now on blocks of a MiB and more are kept when they are freed and given out again. Blocks in use and blocks kept together
// never hold more than the most that was in use at once, so that recomputing activations still lowers the resident memory. Each
// block is a mapping of its own, in huge pages where the system has them on request. Smaller ones: ops/small_blocks.h.
void install_host_allocator();

struct HostMemory {
  std::size_t used, kept, most_used;  // bytes of large blocks
};
HostMemory host_memory();

}  // namespace molt::ops
