// One line that says how far a long piece of work is: redrawn in place in a terminal, a plain line now and then in a log.
#pragma once
#include <cstdint>
#include <memory>
#include <string>

namespace molt {

class Progress {
 public:
  // `total` in `unit`s (0: unknown). Nothing is printed in quiet mode.
  Progress(std::string title, std::int64_t total, std::string unit);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // `done` so far; `note` is shown behind rate and time left ("loss 1.234"). Cheap: draws at most ten times a second.
  // Work resumed at `done` > 0 is not counted in the rate: the first call sets the start.
  void update(std::int64_t done, const std::string& note = "");
  // Ends the line; further updates are ignored.
  void finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// 12 -> "12", 1234567 -> "1.23 M"; for bytes 1536 -> "1.50 KiB"; 3725 seconds -> "1h02m".
std::string human_count(double value);
std::string human_bytes(double bytes);
std::string human_time(double seconds);

}  // namespace molt
