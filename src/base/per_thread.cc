#include "base/per_thread.h"

#include <functional>
#include <mutex>
#include <queue>

namespace molt {
namespace per_thread {

class Numbers {
 public:
  std::size_t take() {
    const std::lock_guard lock(mutex_);
    if (free_.empty()) return count_++;
    const std::size_t smallest = free_.top();
    free_.pop();
    return smallest;
  }
  void give_back(std::size_t number) {
    const std::lock_guard lock(mutex_);
    free_.push(number);
  }

 private:
  std::mutex mutex_;
  std::size_t count_ = 0;
  std::priority_queue<std::size_t, std::vector<std::size_t>, std::greater<>> free_;
};

Numbers& numbers() {
  static auto* const of_the_process = new Numbers;  // never destroyed: threads may end after main
  return *of_the_process;
}

struct Number {
  const std::size_t value = numbers().take();
  ~Number() { numbers().give_back(value); }
};

}  // namespace per_thread

std::size_t thread_number() {
  thread_local const per_thread::Number number;
  return number.value;
}

}  // namespace molt
