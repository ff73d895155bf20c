#include "base/progress.h"

#include <chrono>
#include <cmath>
#include <cstdio>

#include "base/console.h"
#include "base/error.h"
#include "base/log.h"

namespace molt {

namespace progress_detail {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds terminal_interval{100};
constexpr std::chrono::seconds log_interval{10};

double seconds_between(Clock::time_point begin, Clock::time_point end) {
  return std::chrono::duration<double>(end - begin).count();
}

std::string print(const char* pattern, double value) {
  char text[64];
  std::snprintf(text, sizeof text, pattern, value);
  return text;
}

// Three significant digits: 1.23, 12.3, 123.
std::string three_digits(double value) {
  const double size = std::abs(value);
  return print(size < 9.995 ? "%.2f" : size < 99.95 ? "%.1f" : "%.0f", value);
}

std::string two_parts(long larger, const char* larger_unit, long smaller, const char* smaller_unit) {
  return concat(larger, larger_unit, smaller < 10 ? "0" : "", smaller, smaller_unit);
}

}  // namespace progress_detail

struct Progress::State {
  std::string title;
  std::int64_t total;
  std::string unit;
  bool finished = false;
  bool started = false;
  std::int64_t first = 0;
  std::int64_t done = 0;
  std::string note = "";
  progress_detail::Clock::time_point start = {};
  progress_detail::Clock::time_point drawn = {};

  std::string amount(double value) const { return unit == "bytes" ? human_bytes(value) : human_count(value); }

  // "Training: 120/5000 steps (2%), 3.41 steps/s, 23m51s left, loss 1.234"
  std::string line(double seconds) const {
    std::string text = title + ": " + amount(static_cast<double>(done));
    if (total > 0) text += "/" + amount(static_cast<double>(total));
    if (unit != "bytes") text += " " + unit;
    if (total > 0) text += concat(" (", static_cast<int>(100.0 * static_cast<double>(done) / static_cast<double>(total)), "%)");
    if (finished) text += " in " + human_time(seconds);
    const double rate = seconds > 0 ? static_cast<double>(done - first) / seconds : 0;
    if (rate > 0) {
      text += ", " + amount(rate) + (unit == "bytes" ? "/s" : " " + unit + "/s");
      if (!finished && total > done) text += ", " + human_time(static_cast<double>(total - done) / rate) + " left";
    }
    if (!note.empty()) text += ", " + note;
    return text;
  }
};

Progress::Progress(std::string title, std::int64_t total, std::string unit)
    : state_(new State{.title = std::move(title), .total = total, .unit = std::move(unit)}) {
  state_->start = progress_detail::Clock::now();
}

Progress::~Progress() {
  finish();
}

void Progress::update(std::int64_t done, const std::string& note) {
  using namespace progress_detail;
  if (state_->finished) return;
  const auto now = Clock::now();
  const bool first_call = !state_->started;
  if (first_call) {
    state_->started = true;
    state_->first = done;
    state_->start = state_->drawn = now;
  }
  state_->done = done;
  const bool terminal = console::is_terminal();
  const Clock::duration interval = terminal ? Clock::duration(terminal_interval) : Clock::duration(log_interval);
  const bool due = now - state_->drawn >= interval || (first_call && terminal);
  state_->note = note;
  if (!due) return;
  state_->drawn = now;
  if (log_level() >= LogLevel::warning) return;
  const std::string line = state_->line(seconds_between(state_->start, now));
  terminal ? console::set_live(line) : console::print_line(line);
}

void Progress::finish() {
  if (state_->finished) return;
  state_->finished = true;
  console::clear_live();
  if (!state_->started || log_level() >= LogLevel::warning) return;
  console::print_line(state_->line(progress_detail::seconds_between(state_->start, progress_detail::Clock::now())));
}

std::string human_count(double value) {
  using namespace progress_detail;
  if (!std::isfinite(value)) return "?";
  const double size = std::abs(value);
  if (size < 1e4 && value == std::floor(value)) return print("%.0f", value);
  if (size < 0.1) return print("%.2g", value);
  if (size < 999.5) return three_digits(value);
  const char* units[] = {" k", " M", " G", " T", " P", " E"};
  double scaled = value / 1e3;
  std::size_t unit = 0;
  for (; std::abs(scaled) >= 999.5 && unit + 1 < std::size(units); ++unit) scaled /= 1e3;
  return three_digits(scaled) + units[unit];
}

std::string human_bytes(double bytes) {
  using namespace progress_detail;
  if (!std::isfinite(bytes)) return "?";
  if (std::abs(bytes) < 1024) return print("%.0f B", bytes);
  const char* units[] = {" KiB", " MiB", " GiB", " TiB", " PiB", " EiB"};
  double scaled = bytes / 1024;
  std::size_t unit = 0;
  for (; std::abs(scaled) >= 1023.5 && unit + 1 < std::size(units); ++unit) scaled /= 1024;
  return three_digits(scaled) + units[unit];
}

std::string human_time(double seconds) {
  using namespace progress_detail;
  if (!(seconds >= 0) || seconds > 1e9) return "?";
  if (seconds < 9.95) return print("%.1fs", seconds);
  const long whole = std::lround(seconds);
  if (whole < 60) return concat(whole, "s");
  if (whole < 3600) return two_parts(whole / 60, "m", whole % 60, "s");
  if (whole < 86400) return two_parts(whole / 3600, "h", whole % 3600 / 60, "m");
  return two_parts(whole / 86400, "d", whole % 86400 / 3600, "h");
}

}  // namespace molt
