// How the program fails. A user's mistake is one line and exit code 2; a bug is a message with its place and exit code 1.
#pragma once
#include <sstream>
#include <stdexcept>
#include <string>

namespace molt {

// The values printed one after another: concat("layer ", 7) is "layer 7".
template <class... Values>
std::string concat(const Values&... values) {
  std::ostringstream out;
  (static_cast<void>(out << values), ...);
  return out.str();
}

// Something the user can mend: a wrong path, key, shape, value. The message names the file, the key or line, what was found
// and what was expected, for example "model/config.json: num_hidden_layers: found \"ten\", expected a whole number".
class UserError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The run was stopped by a signal (interrupt.h) after saving its state: exit code 128 + signal.
class Interrupted : public std::runtime_error {
 public:
  explicit Interrupted(int signal);
  int signal() const { return signal_; }

 private:
  int signal_;
};

template <class... Values>
[[noreturn]] void fail(const Values&... message) {
  throw UserError(concat(message...));
}

// Throws UserError with the message unless the condition holds.
template <class... Values>
void require(bool condition, const Values&... message) {
  if (!condition) fail(message...);
}

[[noreturn]] void fail_check(const char* condition, const char* file, int line, const std::string& message);

}  // namespace molt

// An invariant of the program itself: throws std::logic_error with its place, in every build.
#define MOLT_CHECK(condition, ...)                                                                     \
  do {                                                                                                 \
    if (!(condition)) ::molt::fail_check(#condition, __FILE__, __LINE__, ::molt::concat(__VA_ARGS__)); \
  } while (false)
