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

// By these somebody insists when they come again. A terminal that closes sends SIGHUP, often twice and with SIGTERM behind it.
bool insists(int signal) {
  return signal == SIGINT || signal == SIGTERM;
}

void handle(int signal) {
  const int saved_errno = errno;
  // What reads the output (tee) may end by the same signal; writing to it must not end the process before it has saved.
  ::signal(SIGPIPE, SIG_IGN);
  const int before = received.load();
  if (insists(before) && insists(signal)) _exit(128 + signal);
  if (before == 0 || insists(signal)) received.store(signal);
  if (before == 0 && signal != SIGPIPE) {
    constexpr std::string_view notice = "\nstopping as soon as the state is saved (once more: stop at once)\n";
    [[maybe_unused]] const auto written = ::write(STDERR_FILENO, notice.data(), notice.size());
  }
  errno = saved_errno;
}

}  // namespace interrupt_detail

void catch_interrupts() {
  struct sigaction action = {}, before = {};
  action.sa_handler = interrupt_detail::handle;
  // One after the other, so that each finds what the one before has left.
  sigfillset(&action.sa_mask);
  // Libraries that do not expect EINTR must not see their reads and writes fail because the user wants to stop.
  action.sa_flags = SA_RESTART;
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGPIPE}) {
    const bool ignored = sigaction(signal, nullptr, &before) == 0 && before.sa_handler == SIG_IGN;
    if (signal == SIGHUP && ignored) continue;  // nohup
    sigaction(signal, &action, nullptr);
  }
}

int interrupt_signal() {
  return interrupt_detail::received.load(std::memory_order_relaxed);
}

void throw_if_interrupted() {
  if (const int signal = interrupt_signal()) throw Interrupted(signal);
}

}  // namespace molt
