// Runs in a process of its own, killed at chosen and at random moments and started again, must leave what an uninterrupted run
// leaves: the same metrics and the same weights, bit for bit.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "base/interrupt.h"
#include "base/log.h"
#include "train/support.h"

extern char** environ;

namespace molt {

namespace resume_test {

constexpr const char* variable = "MOLT_TRAIN_TEST_CHILD";

// "batch:7": SIGKILL when the 7th batch is asked for; "export:1": inside the first export; "evaluate:2"; "term:9": SIGTERM with
// the 9th batch; "stop:1": SIGTERM in the first evaluation; "timer:40": SIGKILL 40 ms after the start; "full:9": with the 9th
// batch files stop growing, as on a full disk; "sealed:9": the run's folders become read-only; "none".
struct Moment {
  std::string point;
  int count;

  static Moment parse(const std::string& text) {
    const std::size_t colon = text.find(':');
    return {text.substr(0, colon), colon == std::string::npos ? 0 : std::stoi(text.substr(colon + 1))};
  }
  // Called at each point of this name.
  void reach(const std::string& name, int signal = SIGKILL) {
    if (point == name && --count == 0) raise(signal);
  }
};

class Watched : public Evaluator {
 public:
  Watched(Evaluator& inner, Moment& moment) : inner_(inner), moment_(moment) {}
  std::string name() const override { return inner_.name(); }
  std::map<std::string, double> evaluate(const Model& model) override {
    moment_.reach("evaluate");
    moment_.reach("stop", SIGTERM);
    return inner_.evaluate(model);
  }

 private:
  Evaluator& inner_;
  Moment& moment_;
};

// Whether files of this process may grow: where they may not, writing fails with EFBIG, as it does with ENOSPC on a full disk.
void let_files_grow(bool may) {
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit limit;
  getrlimit(RLIMIT_FSIZE, &limit);
  limit.rlim_cur = may ? limit.rlim_max : 1;
  setrlimit(RLIMIT_FSIZE, &limit);
}

// Folders without write permission, for a user that is not root.
void seal(const fs::path& run) {
  for (const fs::path& path : {run, run / "checkpoints"}) fs::permissions(path, fs::perms(0555));
  if (geteuid() == 0) [[maybe_unused]]
    const int left = seteuid(65534);
}

// One run in `folder`; the exit code that the program would have.
int run_child(const fs::path& folder, Moment moment) {
  set_log_level(LogLevel::error);
  catch_interrupts();
  test::TinyRun run(folder);
  Watched watched(run.held_out, moment);
  run.parts.evaluators = {&watched};
  run.source.before_next = [&] {
    moment.reach("batch");
    moment.reach("term", SIGTERM);
    const bool sealed = moment.point == "sealed";
    if ((sealed || moment.point == "full") && --moment.count == 0) {
      std::this_thread::sleep_for(std::chrono::milliseconds(500));  // what is being saved has its time
      sealed ? seal(folder) : let_files_grow(false);
    }
  };
  const auto write_export = run.parts.export_model;
  run.parts.export_model = [&](Model& model, const fs::path& target) {
    write_export(model, target);
    moment.reach("export");
  };
  std::thread timer;
  if (moment.point == "timer") {
    timer = std::thread([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(moment.count));
      raise(SIGKILL);
    });
    timer.detach();
  }
  try {
    run.train();
    return 0;
  } catch (const Interrupted& interrupted) {
    return 128 + interrupted.signal();
  } catch (const std::exception& error) {
    let_files_grow(true);
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
}

// The test program starts itself with the variable set: then it is the child and nothing else.
class Child : public testing::Environment {
 public:
  void SetUp() override {
    const char* order = std::getenv(variable);
    if (order == nullptr) return;
    const std::string text = order;
    const std::size_t bar = text.rfind('|');
    _exit(run_child(text.substr(0, bar), Moment::parse(text.substr(bar + 1))));
  }
};
[[maybe_unused]] testing::Environment* const child = testing::AddGlobalTestEnvironment(new Child);

// Exit code of a run in a new process, or 128 + the signal that ended it.
int start(const fs::path& folder, const std::string& moment, int threads = 1) {
  const std::string order = std::string(variable) + "=" + folder.string() + "|" + moment;
  const std::string omp = concat("OMP_NUM_THREADS=", threads);
  const pid_t pid = fork();
  if (pid == 0) {
    std::vector<char*> environment;
    for (char** entry = environ; *entry != nullptr; ++entry) {
      if (!std::string_view(*entry).starts_with("OMP_")) environment.push_back(*entry);
    }
    environment.push_back(const_cast<char*>(order.c_str()));
    environment.push_back(const_cast<char*>(omp.c_str()));
    environment.push_back(const_cast<char*>("OMP_WAIT_POLICY=passive"));  // other tests may want the cores
    environment.push_back(nullptr);
    char program[] = "/proc/self/exe", filter[] = "--gtest_filter=Schedule.*", brief[] = "--gtest_brief=1";
    char* arguments[] = {program, filter, brief, nullptr};
    execve(program, arguments, environment.data());
    _exit(127);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void expect_same_result(const fs::path& a, const fs::path& b) {
  EXPECT_EQ(test::timeless_metrics(a), test::timeless_metrics(b));
  for (const char* file : {"optimizer.safetensors", "export/model.safetensors"}) {
    const fs::path path = fs::path("checkpoints/00000024") / file;
    EXPECT_TRUE(read_file(a / path) == read_file(b / path)) << file;
  }
}

}  // namespace resume_test

using namespace resume_test;

class Resume : public test::RunFolder {
 protected:
  Resume() : straight(folder / "straight"), killed(folder / "killed") {}
  fs::path straight, killed;
};

TEST_F(Resume, ARunKilledAtAnyPointRepeatsTheUninterruptedOne) {
  constexpr int threads = 2;
  EXPECT_EQ(start(straight, "none", threads), 0);
  EXPECT_EQ(start(killed, "batch:9", threads), 128 + SIGKILL);     // in step 5: nothing is saved yet
  EXPECT_EQ(start(killed, "evaluate:1", threads), 128 + SIGKILL);  // after step 6, while step 5 is saved or behind it
  EXPECT_EQ(start(killed, "export:1", threads), 128 + SIGKILL);    // while step 10 is being saved
  EXPECT_EQ(start(killed, "batch:24", threads), 128 + SIGKILL);    // in step 17: saved at 15, in the middle of a log interval
  EXPECT_EQ(start(killed, "evaluate:2", threads), 128 + SIGKILL);  // after the last step: its evaluation is owed
  EXPECT_EQ(start(killed, "none", threads), 0);
  expect_same_result(straight, killed);
}

TEST_F(Resume, ARunKilledAtRandomRepeatsTheUninterruptedOne) {
  EXPECT_EQ(start(straight, "none"), 0);
  const char* wanted = std::getenv("MOLT_KILLS");  // 50 take half a minute
  std::random_device entropy;
  std::string moments;
  for (int i = 0; i < (wanted ? std::stoi(wanted) : 10); ++i) {
    // A run that gets to its end starts anew, so that every kill meets one that works.
    if (fs::exists(killed / "checkpoints/00000024")) fs::remove_all(killed);
    const std::string moment = concat("timer:", 1 + entropy() % 150);
    moments += moment + " ";
    const int code = start(killed, moment);
    EXPECT_TRUE(code == 0 || code == 128 + SIGKILL) << code;
  }
  SCOPED_TRACE(moments);
  EXPECT_EQ(start(killed, "none"), 0);
  expect_same_result(straight, killed);
}

TEST_F(Resume, AFullDiskEndsTheRunInOneLineAndLosesNothingThatWasSaved) {
  EXPECT_EQ(start(straight, "none"), 0);
  testing::internal::CaptureStderr();
  EXPECT_EQ(start(killed, "full:15"), 2);  // in step 8; what is written next is the line of step 8
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_TRUE(said.find("metrics.jsonl: cannot write: File too large") != std::string::npos) << said;
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
  EXPECT_TRUE(fs::exists(killed / "checkpoints/00000005/state.json"));
  testing::internal::CaptureStderr();
  EXPECT_EQ(start(killed, "full:9"), 2);  // in step 10, whose checkpoint cannot be written
  const std::string said_then = testing::internal::GetCapturedStderr();
  EXPECT_TRUE(said_then.find("cannot write: File too large") != std::string::npos) << said_then;
  EXPECT_FALSE(fs::exists(killed / "checkpoints/00000010"));
  EXPECT_EQ(start(killed, "none"), 0);
  expect_same_result(straight, killed);
}

TEST_F(Resume, AReadOnlyFolderEndsTheRunInOneLine) {
  EXPECT_EQ(start(straight, "none"), 0);
  testing::internal::CaptureStderr();
  EXPECT_EQ(start(killed, "sealed:13"), 2);  // in step 7; the next checkpoint is that of step 10
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_TRUE(said.find("Permission denied") != std::string::npos) << said;
  for (const fs::path& path : {killed, killed / "checkpoints"}) fs::permissions(path, fs::perms(0755));
  EXPECT_EQ(start(killed, "none"), 0);
  expect_same_result(straight, killed);
}

TEST_F(Resume, ASignalFinishesTheStepSavesAndContinues) {
  EXPECT_EQ(start(straight, "none"), 0);
  EXPECT_EQ(start(killed, "term:5"), 128 + SIGTERM);
  EXPECT_TRUE(fs::exists(killed / "checkpoints/00000003/state.json"));
  EXPECT_EQ(test::lines_of(killed / "events.jsonl").back()["event"], "interrupted");
  EXPECT_EQ(start(killed, "term:6"), 128 + SIGTERM);  // at step 6, where an evaluation is due
  EXPECT_TRUE(fs::exists(killed / "checkpoints/00000006/state.json"));
  EXPECT_EQ(start(killed, "stop:2"), 128 + SIGTERM);  // makes up for step 6, then stops in the evaluation of step 12
  EXPECT_TRUE(fs::exists(killed / "checkpoints/00000012/state.json"));
  EXPECT_EQ(start(killed, "none"), 0);
  expect_same_result(straight, killed);
}

}  // namespace molt
