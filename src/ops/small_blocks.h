// Memory of small tensors on the CPU. A step of a small model makes and drops dozens of tensors of some KiB; malloc keeps none
// above a KiB at hand, searches and joins its lists for them, and takes longer than a norm of 16 rows.
#pragma once
#include <cstddef>

namespace molt::ops {

// At least `bytes` from an address that is a multiple of 64; null when the system has no more. Up to kMostSmall they come from
// the calling thread's freed blocks where it has some of their size (a power of two).
void* allocate_small(std::size_t bytes);
// Gives back what allocate_small gave, on any thread.
void free_small(void* block);

inline constexpr std::size_t kMostSmall = 64 << 10;

}  // namespace molt::ops
