#include "base/descriptors.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <system_error>
#include <thread>
#include <vector>

#include "base/error.h"

namespace molt::descriptors {

Descriptor::~Descriptor() {
  if (number_ >= 0) ::close(number_);
}

void fail_system(const fs::path& path, const char* action) {
  const int reason = errno;
  require(reason != EISDIR, path.string(), ": found a folder, expected a file");
  fail(path.string(), ": cannot ", action, ": ", std::strerror(reason));
}

Descriptor open_file(const fs::path& path, int flags, const char* action) {
  int number;
  do {
    number = ::open(path.c_str(), flags | O_CLOEXEC, 0666);
  } while (number < 0 && errno == EINTR);
  if (number < 0) fail_system(path, action);
  Descriptor descriptor(number);
  struct stat status;
  const bool is_folder = fstat(descriptor, &status) == 0 && S_ISDIR(status.st_mode);
  require(!is_folder || (flags & O_DIRECTORY), path.string(), ": found a folder, expected a file");
  return descriptor;
}

namespace temporary_detail {

bool is_still_at(int descriptor, const fs::path& path) {
  struct stat held, named;
  return fstat(descriptor, &held) == 0 && lstat(path.c_str(), &named) == 0 && held.st_dev == named.st_dev &&
         held.st_ino == named.st_ino;
}

}  // namespace temporary_detail

Descriptor open_temporary(const fs::path& temporary, int flags, const fs::path& target) {
  constexpr int attempts = 200;
  for (int attempt = 0; attempt < attempts; ++attempt) {
    if ((flags & O_DIRECTORY) && ::mkdir(temporary.c_str(), 0777) != 0 && errno != EEXIST) fail_system(target, "write");
    Descriptor descriptor = open_file(temporary, flags, "write");
    if (::flock(descriptor, LOCK_EX | LOCK_NB) == 0) {
      // Whoever held the lock before may have renamed or removed what was opened here.
      if (temporary_detail::is_still_at(descriptor, temporary)) return descriptor;
    } else if (errno == EWOULDBLOCK) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    } else if (errno != EINTR) {
      return descriptor;  // a file system without locks
    }
  }
  fail(target.string(), ": another process is writing it");
}

void write_all(int descriptor, std::string_view bytes, const fs::path& path) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail_system(path, "write");
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
}

void sync(int descriptor, const fs::path& path) {
  // Pipes, devices and some network file systems answer EINVAL: they have nothing to make durable.
  if (::fsync(descriptor) != 0 && errno != EINVAL && errno != ENOTSUP) fail_system(path, "write");
}

void sync_folder(const fs::path& path) {
  sync(open_file(path, O_RDONLY | O_DIRECTORY, "open"), path);
}

fs::path resolve(const fs::path& path) {
  const fs::path name = path.has_filename() ? path : path.parent_path();  // without a final slash
  const fs::path last = name.filename();
  require(!last.empty() && last != "." && last != "..", "found \"", path.string(), "\", expected the name of a file or folder");
  std::error_code error;
  if (!fs::is_symlink(fs::symlink_status(name, error))) return name;
  const fs::path real = fs::canonical(name, error);
  return error ? name : real;
}

fs::path parent_folder(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

fs::path neighbour(const fs::path& path, const char* suffix) {
  return path.parent_path() / ("." + path.filename().string() + suffix);
}

void make_folders(const fs::path& path) {
  std::error_code error;
  std::vector<fs::path> missing;
  for (fs::path each = path; !each.empty() && !fs::exists(each, error); each = each.parent_path()) missing.push_back(each);
  fs::create_directories(path, error);
  require(!error, path.string(), ": cannot make the folder: ", error.message());
  for (const fs::path& made : missing) sync_folder(parent_folder(made));
}

void rename(const fs::path& from, const fs::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) fail_system(to, "replace");
}

}  // namespace molt::descriptors
