// How the program takes memory from the system, for tensors of megabytes that come and go in every step.
#pragma once

namespace molt {

// To be called before anything allocates. Blocks of a MiB and more are mapped on their own, so that they go back to the system
// when they are freed: without this, recomputing activations would not lower the resident memory. LibTorch asks for huge pages
// for its own of 2 MiB and more: mapping them anew each step would otherwise fault 4 KiB at a time. THP_MEM_ALLOC_ENABLE=0 in the
// environment keeps it from that.
void configure_allocation();

}  // namespace molt
