#include "base/error.h"

#include <csignal>

namespace molt {

Interrupted::Interrupted(int signal)
    : std::runtime_error(signal == SIGINT    ? "stopped by Ctrl-C"
                         : signal == SIGTERM ? "stopped by SIGTERM"
                         : signal == SIGHUP  ? "stopped because the terminal was closed"
                         : signal == SIGPIPE ? "stopped because nobody reads the output any more"
                                             : concat("stopped by signal ", signal)),
      signal_(signal) {}

void fail_check(const char* condition, const char* file, int line, const std::string& message) {
  throw std::logic_error(concat(file, ":", line, ": ", condition, " does not hold", message.empty() ? "" : ": ", message));
}

}  // namespace molt
