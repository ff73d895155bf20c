#include "ops/host_allocator.h"

#include <ATen/Functions.h>
#include <c10/core/CPUAllocator.h>
#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace molt::ops {
namespace {

constexpr std::int64_t kMiB = 1 << 20;

// The other tests of this program keep LibTorch's own allocator.
class HostAllocator : public testing::Test {
 protected:
  void SetUp() override {
    before_ = c10::GetCPUAllocator();
    install_host_allocator();
  }
  void TearDown() override { c10::SetCPUAllocator(before_, 1); }
  at::Allocator* before_ = nullptr;
};

at::Tensor block(std::int64_t bytes) {
  return at::empty({bytes}, at::kByte);
}

TEST_F(HostAllocator, GivesFreedBlocksOutAgain) {
  at::Tensor first = block(5 * kMiB);
  const void* const place = first.data_ptr();
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(place) % 64, 0u);
  first.fill_(7);
  first.reset();
  EXPECT_EQ(block(5 * kMiB - 1000).data_ptr(), place);
  const std::size_t used = host_memory().used;
  const at::Tensor small = block(2 * kMiB);  // the freed block is far too large for that
  EXPECT_LT(host_memory().used - used, static_cast<std::size_t>(3 * kMiB));
}

TEST_F(HostAllocator, HoldsNoMoreThanTheMostThatWasUsedAtOnce) {
  {
    const std::vector<at::Tensor> together = {block(8 * kMiB), block(16 * kMiB), block(8 * kMiB)};
    EXPECT_GE(host_memory().most_used, static_cast<std::size_t>(32 * kMiB));
  }
  const std::size_t most = host_memory().most_used;
  for (const std::int64_t size : {3, 7, 11, 13, 17, 23, 29, 31, 5, 9}) {
    const at::Tensor one = block(size * kMiB);
    const HostMemory memory = host_memory();
    EXPECT_LE(memory.used + memory.kept, most);
    EXPECT_GE(memory.used, static_cast<std::size_t>(size * kMiB));
  }
  EXPECT_EQ(host_memory().most_used, most);
}

TEST_F(HostAllocator, SmallBlocksAndCopiesWorkAsBefore) {
  const HostMemory before = host_memory();
  const at::Tensor small = at::arange(1000);
  EXPECT_EQ(host_memory().used, before.used);
  const at::Tensor large = at::arange(kMiB);
  EXPECT_TRUE(at::equal(large.clone(), large));
  EXPECT_TRUE(at::equal(small.repeat({2000}).slice(0, 0, 1000), small));
}

TEST_F(HostAllocator, GivesASmallBlockOutAgainToTheThreadThatFreedIt) {
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "under the address sanitizer freed blocks are not used again";
#endif
  for (const std::int64_t bytes : {1, 64, 65, 3000, 65536}) {
    at::Tensor first = block(bytes);
    void* const place = first.data_ptr();
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(place) % 64, 0u);
    first.fill_(7);
    first.reset();
    const at::Tensor again = block(bytes), other = block(bytes);
    EXPECT_EQ(again.data_ptr(), place) << bytes;
    EXPECT_NE(other.data_ptr(), place) << bytes;
  }
  at::Tensor passed = block(5000);
  void* const place = passed.data_ptr();
  std::thread([&] {
    passed.reset();
    EXPECT_EQ(block(5000).data_ptr(), place);
  }).join();
  EXPECT_EQ(block(0).data_ptr(), nullptr);
}

TEST_F(HostAllocator, ServesSeveralThreads) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([t] {
      for (int i = 0; i < 200; ++i) {
        at::Tensor own = block((1 + (i * 7 + t) % 5) * (i % 2 ? kMiB : 1000));
        auto* bytes = own.mutable_data_ptr<std::uint8_t>();
        bytes[0] = bytes[own.numel() - 1] = static_cast<std::uint8_t>(t);
        std::this_thread::yield();
        EXPECT_EQ(bytes[0] + bytes[own.numel() - 1], 2 * t);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace molt::ops
