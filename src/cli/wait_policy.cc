// How long a thread that waits for the others spins before it sleeps. GNU OpenMP's default is some milliseconds at the end of
// every parallel loop: while other programs want the cores, that takes three times the processor time of the work itself. It
// reads the setting when it is loaded, before main(), so the program starts itself once more with it. The preinit array runs
// before LibTorch's own initialisation, the long part of a start. A user's OMP_WAIT_POLICY or GOMP_SPINCOUNT stands.
#include <alloca.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <string_view>

#ifndef __SANITIZE_ADDRESS__  // whose own start has not run yet

namespace molt::wait_policy {

// A few tenths of a millisecond: longer than the operators of one layer are apart.
char setting[] = "GOMP_SPINCOUNT=10000";

void bound_spinning(int, char** arguments, char** environment) {
  std::size_t count = 0;
  for (; environment[count]; ++count) {
    const std::string_view entry = environment[count];
    if (entry.starts_with("OMP_WAIT_POLICY=") || entry.starts_with("GOMP_SPINCOUNT=")) return;
  }
  char program[PATH_MAX];
  const ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
  if (length <= 0) return;
  program[length] = 0;
  auto** extended = static_cast<char**>(alloca((count + 2) * sizeof(char*)));
  std::copy_n(environment, count, extended);
  extended[count] = setting, extended[count + 1] = nullptr;
  execve(program, arguments, extended);  // where that fails, the program goes on as it is
}

__attribute__((section(".preinit_array"), used)) void (*const at_start)(int, char**, char**) = bound_spinning;

}  // namespace molt::wait_policy

#endif
