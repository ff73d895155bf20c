#include "base/interrupt.h"

#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <string_view>

#include "base/error.h"

namespace molt {

namespace interrupt_detail {

std::atomic<int> received{0};
static_assert(std::atomic<int>::is_always_lock_free, "a signal handler may only touch lock-free atomics");

void handle(int signal) {
  int none = 0;
  if (!received.compare_exchange_strong(none, signal)) _exit(128 + signal);
  constexpr std::string_view notice = "\nstopping as soon as the state is saved (once more: stop at once)\n";
  const int saved_errno = errno;
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, notice.data(), notice.size());
  errno = saved_errno;
}

}  // namespace interrupt_detail

void catch_interrupts() {
  struct sigaction action = {};
  action.sa_handler = interrupt_detail::handle;
  sigemptyset(&action.sa_mask);
  // Libraries that do not expect EINTR must not see their reads and writes fail because the user wants to stop.
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

int interrupt_signal() {
  return interrupt_detail::received.load(std::memory_order_relaxed);
}

void throw_if_interrupted() {
  if (const int signal = interrupt_signal()) throw Interrupted(signal);
}

}  // namespace molt
