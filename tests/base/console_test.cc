// What people see on standard error: log lines, the progress line, and the answer to Ctrl-C.
#include <gtest/gtest.h>
#include <pty.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <thread>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/progress.h"

namespace molt::console_test {

struct Output {
  std::string text;
  int status = 0;
};

// What `action` prints in a process of its own whose standard error is a terminal `columns` wide, and how it ended.
template <class Action>
Output in_terminal(int columns, Action action) {
  winsize size = {};
  size.ws_col = static_cast<unsigned short>(columns);
  size.ws_row = 24;
  int terminal = -1;
  const pid_t child = forkpty(&terminal, nullptr, nullptr, &size);
  if (child == 0) {
    setenv("TERM", "xterm", 1);
    unsetenv("NO_COLOR");
    action();
    _exit(0);
  }
  Output output;
  char buffer[4096];
  for (ssize_t got; (got = read(terminal, buffer, sizeof buffer)) > 0;) output.text.append(buffer, static_cast<std::size_t>(got));
  waitpid(child, &output.status, 0);
  close(terminal);
  return output;
}

class Console : public testing::Test {
 protected:
  ~Console() override { set_log_level(LogLevel::info); }
};

TEST_F(Console, LogsWithPrefixesAboveTheLevel) {
  testing::internal::CaptureStderr();
  log_debug("hidden");
  log_info("loaded {} 100%");
  log_warning("slow");
  log_error("bad");
  set_log_level(LogLevel::error);
  log_warning("hidden");
  EXPECT_EQ(log_level(), LogLevel::error);
  set_log_level(LogLevel::debug);
  log_debug("details");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "loaded {} 100%\nwarning: slow\nerror: bad\ndebug: details\n");
}

TEST_F(Console, SpellsOutWhatWouldBreakTheLineOrMoveTheCursor) {
  testing::internal::CaptureStderr();
  log_error("model_type: found \"a\nb\x1b[2J\x7f\u009bé\"");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "error: model_type: found \"a\\nb\\x1b[2J\\x7f\\x9bé\"\n");
}

TEST_F(Console, ColoursOnlyInTerminals) {
  EXPECT_EQ(in_terminal(80, [] { log_warning("slow"); }).text, "\x1b[1;33mwarning:\x1b[0m slow\r\n");
  const auto without = in_terminal(80, [] {
    setenv("NO_COLOR", "1", 1);
    log_warning("slow");
  });
  EXPECT_EQ(without.text, "warning: slow\r\n");
}

TEST_F(Console, LogLineGoesAboveTheProgressLine) {
  const Output output = in_terminal(80, [] {
    Progress progress("Training", 10, "steps");
    progress.update(0, "loss 2.5");
    log_info("saved");
  });
  EXPECT_EQ(
      output.text.find("\r\x1b[KTraining: 0/10 steps (0%), loss 2.5\r\x1b[Ksaved\r\nTraining: 0/10 steps (0%), loss 2.5\r\x1b[K"),
      0u)
      << output.text;
}

TEST_F(Console, ProgressLineFitsTheTerminal) {
  const Output output = in_terminal(20, [] {
    Progress progress("Überlänge im Titel", 10, "steps");
    progress.update(1);
  });
  EXPECT_EQ(output.text.find("\r\x1b[KÜberlänge im Titel:\r\x1b[K"), 0u) << output.text;
}

TEST_F(Console, ProgressIsDrawnTenTimesASecondAtMost) {
  const Output output = in_terminal(80, [] {
    Progress progress("Training", 1000, "steps");
    for (int i = 0; i < 1000; ++i) {
      progress.update(i);
      std::this_thread::sleep_for(std::chrono::microseconds(250));
    }
  });
  std::size_t draws = 0;
  for (std::size_t at = 0; (at = output.text.find("\x1b[KTraining", at)) != std::string::npos; ++at) ++draws;
  EXPECT_GE(draws, 3u);
  EXPECT_LE(draws, 30u);
  EXPECT_NE(output.text.find(" left"), std::string::npos);
}

TEST_F(Console, ProgressInALogIsOneLineAtTheEnd) {
  testing::internal::CaptureStderr();
  {
    Progress progress("Reading", 2048, "bytes");
    progress.update(1024);
    progress.update(2048, "2 files");
  }
  const std::string text = testing::internal::GetCapturedStderr();
  EXPECT_EQ(text.find("Reading: 2.00 KiB/2.00 KiB (100%) in 0.0s, "), 0u) << text;
  EXPECT_EQ(text.substr(text.size() - 10), ", 2 files\n");
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
}

TEST_F(Console, QuietMeansNoProgress) {
  set_log_level(LogLevel::warning);
  testing::internal::CaptureStderr();
  {
    Progress progress("Reading", 0, "lines");
    progress.update(5);
    progress.finish();
    progress.update(6);
  }
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST(Human, Counts) {
  EXPECT_EQ(human_count(12), "12");
  EXPECT_EQ(human_count(9999), "9999");
  EXPECT_EQ(human_count(12345), "12.3 k");
  EXPECT_EQ(human_count(999999), "1.00 M");
  EXPECT_EQ(human_count(1234567), "1.23 M");
  EXPECT_EQ(human_count(0.0123), "0.012");
  EXPECT_EQ(human_count(3.456), "3.46");
  EXPECT_EQ(human_count(-2.5e9), "-2.50 G");
  EXPECT_EQ(human_count(1.0 / 0.0), "?");
}

TEST(Human, Bytes) {
  EXPECT_EQ(human_bytes(512), "512 B");
  EXPECT_EQ(human_bytes(1536), "1.50 KiB");
  EXPECT_EQ(human_bytes(141e9), "131 GiB");
}

TEST(Human, Times) {
  EXPECT_EQ(human_time(0.25), "0.2s");
  EXPECT_EQ(human_time(59.6), "1m00s");
  EXPECT_EQ(human_time(125), "2m05s");
  EXPECT_EQ(human_time(3725), "1h02m");
  EXPECT_EQ(human_time(90000), "1d01h");
  EXPECT_EQ(human_time(-1), "?");
}

TEST(Interrupt, FirstSignalAsksToStop) {
  const Output output = in_terminal(80, [] {
    catch_interrupts();
    throw_if_interrupted();
    raise(SIGTERM);
    try {
      throw_if_interrupted();
    } catch (const Interrupted& stop) {
      _exit(interrupt_signal() == SIGTERM && stop.signal() == SIGTERM ? 7 : 8);
    }
  });
  EXPECT_EQ(WEXITSTATUS(output.status), 7);
  EXPECT_NE(output.text.find("stopping as soon as"), std::string::npos);
}

// As `molt train … | tee log` ends by Ctrl-C: the reader is gone when the run begins to save.
TEST(Interrupt, OutputThatNobodyReadsDoesNotEndWhatIsBeingSaved) {
  for (const int signal : {SIGINT, SIGHUP, SIGPIPE}) {
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) {
      close(ends[0]);
      dup2(ends[1], STDERR_FILENO);
      ::signal(signal, SIG_DFL);  // nohup may run this test
      catch_interrupts();
      if (signal != SIGPIPE) raise(signal);
      log_warning("saving");
      log_warning("saved");
      _exit(interrupt_signal() == signal ? 7 : 8);
    }
    close(ends[0]);
    close(ends[1]);
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 7) << signal << " ended it with " << status;
  }
}

TEST(Interrupt, AClosingTerminalDoesNotInsist) {
  const Output output = in_terminal(80, [] {
    catch_interrupts();
    raise(SIGHUP);
    raise(SIGHUP);
    raise(SIGTERM);
    _exit(interrupt_signal() == SIGTERM ? 7 : 8);
  });
  EXPECT_EQ(WEXITSTATUS(output.status), 7);
}

TEST(Interrupt, NohupStands) {
  const Output output = in_terminal(80, [] {
    signal(SIGHUP, SIG_IGN);
    catch_interrupts();
    raise(SIGHUP);
    _exit(interrupt_signal() == 0 ? 7 : 8);
  });
  EXPECT_EQ(WEXITSTATUS(output.status), 7);
}

TEST(Interrupt, SecondSignalStopsAtOnce) {
  const Output output = in_terminal(80, [] {
    catch_interrupts();
    raise(SIGTERM);
    raise(SIGINT);
  });
  EXPECT_TRUE(WIFEXITED(output.status));
  EXPECT_EQ(WEXITSTATUS(output.status), 130);
}

TEST(Errors, ChecksNameTheirPlace) {
  try {
    MOLT_CHECK(1 + 1 == 3, "layer ", 7);
    FAIL();
  } catch (const std::logic_error& error) {
    EXPECT_NE(std::string(error.what()).find("console_test.cc:"), std::string::npos);
    EXPECT_NE(std::string(error.what()).find("1 + 1 == 3 does not hold: layer 7"), std::string::npos);
  }
  EXPECT_THROW(require(false, "x"), UserError);
  EXPECT_NO_THROW(require(true, "x"));
}

}  // namespace molt::console_test
