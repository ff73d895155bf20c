#include "ops/host_allocator.h"

#include <c10/core/CPUAllocator.h>
#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <list>
#include <map>
#include <mutex>
#include <unordered_map>

#include "ops/small_blocks.h"

namespace molt::ops {

namespace host_allocation {

constexpr std::size_t kLeast = 1 << 20, kHugePage = 2 << 20, kPage = 4096;

// Eight sizes between neighbouring powers of two, so that a block that was freed fits more requests than its own.
std::size_t rounded(std::size_t bytes) {
  const std::size_t step = std::bit_floor(bytes) / 8;
  return (bytes + step - 1) / step * step;
}

struct Block {
  void* address;
  std::size_t bytes;
};

// {null, 0} when the system has no more. Huge pages need an address that is a multiple of their size.
Block map(std::size_t bytes) {
  const std::size_t whole = bytes + kHugePage;
  void* const start = ::mmap(nullptr, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (start == MAP_FAILED) return {nullptr, 0};
  const auto begin = reinterpret_cast<std::uintptr_t>(start);
  const std::uintptr_t aligned = (begin + kHugePage - 1) / kHugePage * kHugePage;
  if (aligned > begin) ::munmap(start, aligned - begin);
  if (begin + whole > aligned + bytes) ::munmap(reinterpret_cast<void*>(aligned + bytes), begin + whole - aligned - bytes);
  ::madvise(reinterpret_cast<void*>(aligned), bytes, MADV_HUGEPAGE);  // refused where the system has none: ordinary pages then
  return {reinterpret_cast<void*>(aligned), bytes};
}

class HostAllocator final : public at::Allocator {
 public:
  at::DataPtr allocate(std::size_t bytes) override {
    void* address = bytes < kLeast ? nullptr : take(rounded(bytes));
    if (!address && bytes > 0) address = allocate_small(bytes);
    TORCH_CHECK_WITH(OutOfMemoryError, address || bytes == 0, "out of memory: ", bytes, " bytes for a tensor");
    return {address, address, &HostAllocator::release, at::Device(at::kCPU)};
  }
  at::DeleterFnPtr raw_deleter() const override { return &HostAllocator::release; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override { default_copy_data(to, from, bytes); }

  HostMemory memory() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return {used_bytes_, kept_bytes_, most_used_};
  }

  // Never destroyed: tensors of static lifetime may be freed after everything else.
  static HostAllocator& instance() {
    static auto* const allocator = new HostAllocator;
    return *allocator;
  }

 private:
  static void release(void* address) {
    const bool may_be_large = address && reinterpret_cast<std::uintptr_t>(address) % kPage == 0;
    if (!(may_be_large && instance().keep(address))) free_small(address);
  }

  // A block of at least `bytes`; null when the system has no more.
  void* take(std::size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    Block block{nullptr, 0};
    if (const auto found = by_size_.lower_bound(bytes); found != by_size_.end() && found->first <= bytes + bytes / 4) {
      block = *found->second;
      forget(found->second);
    } else {
      trim(std::max(most_used_, used_bytes_ + bytes) - bytes);
      block = map(bytes);
      if (!block.address) {
        trim(0);
        block = map(bytes);
      }
    }
    if (!block.address) return nullptr;
    used_[block.address] = block.bytes;
    used_bytes_ += block.bytes;
    most_used_ = std::max(most_used_, used_bytes_);
    return block.address;
  }

  // False for a block that is not one of these.
  bool keep(void* address) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = used_.find(address);
    if (found == used_.end()) return false;
    const Block block{address, found->second};
    used_.erase(found);
    used_bytes_ -= block.bytes;
    kept_bytes_ += block.bytes;
    kept_.push_back(block);
    by_size_.emplace(block.bytes, std::prev(kept_.end()));
    return true;
  }

  // Gives kept blocks back, those first that were freed longest ago, until used and kept ones hold at most `bytes`.
  void trim(std::size_t bytes) {
    while (!kept_.empty() && used_bytes_ + kept_bytes_ > bytes) {
      const Block block = kept_.front();
      forget(kept_.begin());
      ::munmap(block.address, block.bytes);
    }
  }

  void forget(std::list<Block>::iterator block) {
    auto [entry, end] = by_size_.equal_range(block->bytes);
    while (entry != end && entry->second != block) ++entry;
    by_size_.erase(entry);
    kept_bytes_ -= block->bytes;
    kept_.erase(block);
  }

  std::mutex mutex_;
  std::unordered_map<void*, std::size_t> used_;
  std::list<Block> kept_;  // in the order in which they were freed
  std::multimap<std::size_t, std::list<Block>::iterator> by_size_;
  std::size_t used_bytes_ = 0, kept_bytes_ = 0, most_used_ = 0;
};

}  // namespace host_allocation

void install_host_allocator() {
  c10::SetCPUAllocator(&host_allocation::HostAllocator::instance(), /*priority=*/1);
}

HostMemory host_memory() {
  return host_allocation::HostAllocator::instance().memory();
}

}  // namespace molt::ops
