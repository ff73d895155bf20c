#include "ops/small_blocks.h"

#include <array>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <utility>

namespace molt::ops {

namespace small_blocks {

constexpr std::size_t kLine = 64, kKeptBytes = 256 << 10;  // of a size by a thread
constexpr std::size_t kSizes = std::bit_width(kMostSmall / kLine);

// Before the memory that is given out, in a cache line of its own.
struct alignas(kLine) Header {
  std::size_t size;  // kLine << size bytes follow; kSizes or more: not one of those that are kept
  Header* next;      // among the freed ones
};

struct FreeBlocks {
  std::array<Header*, kSizes> first = {};
  std::array<std::size_t, kSizes> count = {};

  ~FreeBlocks();
};

// Null before a thread's first block and after its last one, when tensors of static lifetime may still be freed.
thread_local FreeBlocks* mine = nullptr;
thread_local bool ended = false;

FreeBlocks::~FreeBlocks() {
  mine = nullptr;
  ended = true;
  for (Header* block : first)
    while (block) std::free(std::exchange(block, block->next));
}

FreeBlocks* of_this_thread() {
  if (!mine && !ended) {
    thread_local FreeBlocks blocks;
    mine = &blocks;
  }
  return mine;
}

// Of a request; kSizes for one that is too large.
std::size_t size_of(std::size_t bytes) {
  if (bytes > kMostSmall) return kSizes;
  return static_cast<std::size_t>(std::bit_width(bytes > kLine ? (bytes - 1) / kLine : 0));
}

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kKeeps = false;  // what is used after it was freed is to be seen
#else
constexpr bool kKeeps = true;
#endif

}  // namespace small_blocks

void* allocate_small(std::size_t bytes) {
  using namespace small_blocks;
  const std::size_t size = size_of(bytes);
  if (FreeBlocks* const own = of_this_thread(); own && size < kSizes && own->first[size]) {
    --own->count[size];
    return std::exchange(own->first[size], own->first[size]->next) + 1;
  }
  const std::size_t room = size < kSizes ? kLine << size : bytes;
  void* block = nullptr;
  if (room > SIZE_MAX - sizeof(Header) || posix_memalign(&block, kLine, sizeof(Header) + room) != 0) return nullptr;
  return new (block) Header{size, nullptr} + 1;
}

void free_small(void* block) {
  using namespace small_blocks;
  if (!block) return;
  Header* const header = static_cast<Header*>(block) - 1;
  const std::size_t size = header->size;
  FreeBlocks* const own = kKeeps && size < kSizes ? of_this_thread() : nullptr;
  if (!own || own->count[size] >= (kKeptBytes >> size) / kLine) return std::free(header);
  header->next = std::exchange(own->first[size], header);
  ++own->count[size];
}

}  // namespace molt::ops
