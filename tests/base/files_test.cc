#include "base/files.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <algorithm>
#include <csignal>
#include <fstream>
#include <thread>

#include "support/error_of.h"
#include "support/temporary_folder.h"

namespace molt::files_test {

class Files : public FolderTest {
 protected:
  // The names in the folder, sorted, hidden ones too.
  std::string names() const {
    std::vector<std::string> all;
    for (const auto& entry : fs::directory_iterator(folder)) all.push_back(entry.path().filename().string());
    std::sort(all.begin(), all.end());
    std::string text;
    for (const std::string& name : all) text += (text.empty() ? "" : " ") + name;
    return text;
  }
};

// Files of this process may not grow beyond `bytes` while it lives; what is beyond fails with EFBIG, as a full disk does with
// ENOSPC.
class SmallDisk {
 public:
  explicit SmallDisk(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit small{bytes, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &small);
  }
  ~SmallDisk() {
    setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_;
  void (*handler_)(int);
};

// Runs `action` in a process that is killed right after it, without any destructor.
template <class Action>
void run_and_kill(Action action) {
  const pid_t child = fork();
  if (child == 0) {
    action();
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
}

TEST_F(Files, WritesAndReads) {
  const std::string content = "line\n" + std::string(1000, '\0') + "end";
  write_file(folder / "new" / "deep" / "a.txt", content);
  EXPECT_EQ(read_file(folder / "new" / "deep" / "a.txt"), content);
  write_file(folder / "new" / "deep" / "a.txt", "");
  EXPECT_EQ(read_file(folder / "new" / "deep" / "a.txt"), "");
  EXPECT_EQ(read_file("/proc/self/status").substr(0, 5), "Name:");
}

TEST_F(Files, NamesPathAndReason) {
  const std::string missing = (folder / "missing").string();
  EXPECT_EQ(error_of([&] { read_file(missing); }), missing + ": cannot open: No such file or directory");
  EXPECT_EQ(error_of([&] { MappedFile::open(missing); }), missing + ": cannot open: No such file or directory");
  const std::string expected = folder.string() + ": found a folder, expected a file";
  EXPECT_EQ(error_of([&] { read_file(folder); }), expected);
  EXPECT_EQ(error_of([&] { MappedFile::open(folder); }), expected);
  EXPECT_EQ(error_of([&] { write_file(folder, "x"); }), expected);
  EXPECT_EQ(error_of([&] { LineWriter(folder).append("x"); }), expected);
  write_file(folder / "file", "x");
  EXPECT_EQ(error_of([&] { AtomicFolder(folder / "file"); }), (folder / "file").string() + ": found a file, expected a folder");
  EXPECT_NE(error_of([&] { write_file(folder / "file" / "inside", "x"); }).find("file: cannot make the folder: "),
            std::string::npos);
  EXPECT_NE(error_of([&] { AtomicFolder(folder / ".."); }), "");
  EXPECT_NE(error_of([&] { write_file(folder.string() + "/", "x"); }), "");
}

TEST_F(Files, MapsFiles) {
  write_file(folder / "a", "content");
  write_file(folder / "empty", "");
  const auto mapped = MappedFile::open(folder / "a", Access::random);
  fs::remove(folder / "a");
  EXPECT_EQ(mapped->text(), "content");
  EXPECT_EQ(MappedFile::open(folder / "empty")->size(), 0u);
}

TEST_F(Files, MapsPipes) {
  const fs::path pipe = folder / "pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  const std::string content(200000, 'x');
  std::thread writer([&] { std::ofstream(pipe) << content; });
  const auto mapped = MappedFile::open(pipe);
  writer.join();
  EXPECT_EQ(mapped->text(), content);
}

TEST_F(Files, AtomicFileAppearsOnCommitOnly) {
  write_file(folder / "a", "old");
  {
    AtomicFile file(folder / "a");
    file.write("new ");
    file.write(std::string(100000, 'x'));
    EXPECT_EQ(file.position(), 100004u);
    EXPECT_EQ(read_file(folder / "a"), "old");
    file.commit();
    EXPECT_THROW(file.write("more"), std::logic_error);
  }
  EXPECT_EQ(read_file(folder / "a"), "new " + std::string(100000, 'x'));
  {
    AtomicFile(folder / "b").write("dropped");
  }
  EXPECT_EQ(names(), "a");
}

TEST_F(Files, AtomicFileFollowsLinksAndWritesDevices) {
  write_file(folder / "real", "old");
  fs::create_symlink("real", folder / "link");
  write_file(folder / "link", "new");
  EXPECT_TRUE(fs::is_symlink(folder / "link"));
  EXPECT_EQ(read_file(folder / "real"), "new");
  write_file("/dev/null", "gone");
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
}

TEST_F(Files, FullDiskLeavesNothing) {
  EXPECT_EQ(error_of([] { write_file("/dev/full", "x"); }), "/dev/full: cannot write: No space left on device");
  EXPECT_EQ(error_of([] { LineWriter("/dev/full").append("x"); }), "/dev/full: cannot write: No space left on device");
  write_file(folder / "a", "old");
  std::string message;
  {
    SmallDisk disk(100000);
    message = error_of([&] { write_file(folder / "a", std::string(200000, 'x')); });
  }
  EXPECT_EQ(message, (folder / "a").string() + ": cannot write: File too large");
  EXPECT_EQ(read_file(folder / "a"), "old");
  EXPECT_EQ(names(), "a");
}

TEST_F(Files, LeftoverOfKilledWriterIsReused) {
  run_and_kill([&] {
    auto* file = new AtomicFile(folder / "a");
    file->write(std::string(100000, 'x'));
  });
  EXPECT_EQ(names(), ".a.partial");
  write_file(folder / "a", "whole");
  EXPECT_EQ(read_file(folder / "a"), "whole");
  EXPECT_EQ(names(), "a");
}

TEST_F(Files, SecondWriterIsRefused) {
  AtomicFolder first(folder / "a");
  EXPECT_EQ(error_of([&] { AtomicFolder(folder / "a"); }), (folder / "a").string() + ": another process is writing it");
  write_file(first.path() / "x", "1");
  first.commit();
  EXPECT_EQ(read_file(folder / "a" / "x"), "1");
}

TEST_F(Files, ConcurrentWritersEachWriteWhole) {
  std::vector<std::thread> writers;
  for (char c = 'a'; c < 'e'; ++c) {
    writers.emplace_back([&, c] {
      for (int i = 0; i < 10; ++i) write_file(folder / "a", std::string(1000, c));
    });
  }
  for (std::thread& writer : writers) writer.join();
  const std::string content = read_file(folder / "a");
  EXPECT_EQ(content, std::string(1000, content[0]));
  EXPECT_EQ(names(), "a");
}

TEST_F(Files, AtomicFolderAppearsOnCommitOnly) {
  {
    AtomicFolder fresh(folder / "run" / "export/");
    write_file(fresh.path() / "sub" / "x", "1");
    EXPECT_FALSE(fs::exists(folder / "run" / "export"));
    fresh.commit();
  }
  EXPECT_EQ(read_file(folder / "run" / "export" / "sub" / "x"), "1");
  {
    write_file(AtomicFolder(folder / "dropped").path() / "x", "1");
  }
  EXPECT_EQ(names(), "run");
}

TEST_F(Files, AtomicFolderReplaces) {
  fs::create_directories(folder / "a" / "old");
  AtomicFolder fresh(folder / "a");
  write_file(fresh.path() / "new", "1");
  EXPECT_TRUE(fs::exists(folder / "a" / "old"));
  fresh.commit();
  EXPECT_FALSE(fs::exists(folder / "a" / "old"));
  EXPECT_TRUE(fs::exists(folder / "a" / "new"));
  EXPECT_EQ(names(), "a");
}

TEST_F(Files, AtomicFolderSurvivesKills) {
  write_file(folder / "a" / "x", "old");
  run_and_kill([&] { write_file((new AtomicFolder(folder / "a"))->path() / "torn", "half"); });
  EXPECT_EQ(names(), ".a.partial a");
  EXPECT_EQ(read_file(folder / "a" / "x"), "old");
  {
    AtomicFolder fresh(folder / "a");
    EXPECT_TRUE(fs::is_empty(fresh.path()));
  }
  EXPECT_EQ(names(), "a");

  // Killed between the two renames of a replacement: only the folder that was put aside is left.
  fs::rename(folder / "a", folder / ".a.old");
  {
    AtomicFolder fresh(folder / "a");
  }
  EXPECT_EQ(names(), "a");
  EXPECT_EQ(read_file(folder / "a" / "x"), "old");

  // Killed after the second one: the old folder is removed.
  write_file(folder / ".a.old" / "x", "older");
  {
    AtomicFolder fresh(folder / "a");
  }
  EXPECT_EQ(names(), "a");
  EXPECT_EQ(read_file(folder / "a" / "x"), "old");
}

TEST_F(Files, LineWriterCutsTornLastLine) {
  const fs::path path = folder / "metrics.jsonl";
  write_file(path, "{\"step\": 1}\n" + std::string(10000, 'x'));
  {
    LineWriter out(path);
    EXPECT_EQ(read_file(path), "{\"step\": 1}\n");
    out.append("{\"step\": 2}");
    EXPECT_EQ(read_file(path), "{\"step\": 1}\n{\"step\": 2}\n");
  }
  write_file(path, "torn");
  LineWriter(path).append("whole");
  EXPECT_EQ(read_file(path), "whole\n");
  EXPECT_THROW(LineWriter(path).append("two\nlines"), std::logic_error);
}

TEST_F(Files, LineWriterKeepsWholeLinesOnFullDisk) {
  const fs::path path = folder / "metrics.jsonl";
  LineWriter out(path);
  out.append("first");
  std::string message;
  {
    SmallDisk disk(10);
    message = error_of([&] { out.append("a line that does not fit"); });
  }
  EXPECT_EQ(message, path.string() + ": cannot write: File too large");
  EXPECT_EQ(read_file(path), "first\n");
  out.append("second");
  EXPECT_EQ(read_file(path), "first\nsecond\n");
}

TEST_F(Files, LineReaderReadsAnyEnds) {
  const fs::path path = folder / "lines";
  write_file(path,
             "\xef\xbb\xbf"
             "first\r\n\nthird\nlast");
  LineReader in(path);
  std::vector<std::string> lines;
  for (std::string_view line; in.next(line);) lines.emplace_back(line);
  EXPECT_EQ(lines, (std::vector<std::string>{"first", "", "third", "last"}));
  EXPECT_EQ(in.place(), path.string() + ":4");
  write_file(path, "");
  std::string_view line;
  EXPECT_FALSE(LineReader(path).next(line));

  LineReader memory(
      "\xef\xbb\xbf"
      "one\ntwo",
      "text");
  EXPECT_TRUE(memory.next(line) && memory.next(line));
  EXPECT_EQ(line, "two");
  EXPECT_EQ(memory.place(), "text:2");
  EXPECT_FALSE(memory.next(line));
}

}  // namespace molt::files_test
