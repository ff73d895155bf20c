#include "base/per_thread.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <barrier>
#include <thread>
#include <vector>

namespace molt {
namespace per_thread_test {

std::atomic<int> alive{0};

struct Object {
  int uses = 0;
  Object() { ++alive; }
  ~Object() { --alive; }
};

TEST(PerThread, KeepsAnObjectForItsThread) {
  {
    PerThread<Object> objects;
    const Object* first = nullptr;
    for (int i = 0; i < 3; ++i) {
      const auto loan = objects.borrow();
      if (!first) first = &*loan;
      EXPECT_EQ(&*loan, first);
      EXPECT_EQ((*loan).uses++, i);
    }
    EXPECT_EQ(alive, 1);
  }
  EXPECT_EQ(alive, 0);
}

TEST(PerThread, LendsTwiceWithinACall) {
  {
    PerThread<Object> objects;
    const auto outer = objects.borrow();
    const auto inner = objects.borrow();
    EXPECT_NE(&*outer, &*inner);
    EXPECT_EQ(alive, 2);
  }
  EXPECT_EQ(alive, 0);
}

TEST(PerThread, LeavesTheObjectOfAnEndedThreadToTheNext) {
  {
    PerThread<Object> objects;
    for (int i = 0; i < 200; ++i) {
      std::thread([&, i] { EXPECT_EQ((*objects.borrow()).uses++, i); }).join();
    }
    EXPECT_EQ(alive, 1);
  }
  EXPECT_EQ(alive, 0);
}

TEST(PerThread, NeverLendsOneObjectToTwoThreads) {
  constexpr int threads = 150;  // more than there are places
  {
    PerThread<Object> objects;
    std::barrier together(threads);
    std::vector<const Object*> lent(threads);
    std::vector<std::thread> workers;
    for (int i = 0; i < threads; ++i) {
      workers.emplace_back([&, i] {
        together.arrive_and_wait();
        const auto loan = objects.borrow();
        lent[static_cast<std::size_t>(i)] = &*loan;
        together.arrive_and_wait();  // all are out at once
      });
    }
    for (auto& worker : workers) worker.join();
    std::ranges::sort(lent);
    EXPECT_EQ(std::ranges::unique(lent).size(), 0u);
  }
  EXPECT_EQ(alive, 0);
}

}  // namespace per_thread_test
}  // namespace molt
