#include "base/console.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <mutex>
#include <string>

namespace molt::console {

namespace console_detail {

struct State {
  std::mutex mutex;
  std::string live;
};

// Never destroyed, so that destructors of other statics may still log.
State& state() {
  static State* state = new State;
  return *state;
}

void write_all(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;  // nobody is left to tell
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

constexpr std::string_view wipe = "\r\x1b[K";

std::size_t terminal_columns() {
  winsize size = {};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

// At most `columns` characters of UTF-8 text, never a part of one.
std::string_view cut(std::string_view text, std::size_t columns) {
  std::size_t characters = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool starts_character = (static_cast<unsigned char>(text[i]) & 0xc0) != 0x80;
    if (starts_character && characters++ == columns) return text.substr(0, i);
  }
  return text;
}

}  // namespace console_detail

bool is_terminal() {
  const char* kind = std::getenv("TERM");
  return isatty(STDERR_FILENO) && kind && std::string_view(kind) != "dumb";
}

bool has_colours() {
  const char* refusal = std::getenv("NO_COLOR");
  return is_terminal() && !(refusal && *refusal);
}

void print_line(std::string_view line) {
  auto& state = console_detail::state();
  std::lock_guard lock(state.mutex);
  std::string out;
  if (!state.live.empty()) out += console_detail::wipe;
  out += line;
  out += '\n';
  out += state.live;
  console_detail::write_all(out);
}

void set_live(std::string_view text) {
  auto& state = console_detail::state();
  std::lock_guard lock(state.mutex);
  // The last column stays free: a character there makes some terminals wrap.
  state.live = console_detail::cut(text, console_detail::terminal_columns() - 1);
  console_detail::write_all(std::string(console_detail::wipe) + state.live);
}

void clear_live() {
  auto& state = console_detail::state();
  std::lock_guard lock(state.mutex);
  if (!state.live.empty()) console_detail::write_all(console_detail::wipe);
  state.live.clear();
}

}  // namespace molt::console
