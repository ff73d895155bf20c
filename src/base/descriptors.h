// File descriptors for files.cc, folders.cc and lines.cc: every failure is a UserError that names the path and the system's
// reason.
#pragma once
#include <filesystem>
#include <string_view>
#include <utility>

namespace molt::descriptors {

namespace fs = std::filesystem;

// Closes its file descriptor.
class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  Descriptor(Descriptor&& other) noexcept : number_(other.release()) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  ~Descriptor();
  operator int() const { return number_; }
  int release() { return std::exchange(number_, -1); }

 private:
  int number_;
};

// "path: cannot write: No space left on device", with the reason from errno.
[[noreturn]] void fail_system(const fs::path& path, const char* action);

// open(2), repeated when a signal interrupts it. A folder where a file is expected is an error unless flags hold O_DIRECTORY.
Descriptor open_file(const fs::path& path, int flags, const char* action);
// Opens or makes the temporary file (flags O_CREAT …) or folder (O_DIRECTORY) of `target` and holds its lock, so that a leftover
// can be told from the work of a living process: that one is waited for briefly, then it is an error.
Descriptor open_temporary(const fs::path& temporary, int flags, const fs::path& target);

// Writes all bytes, whatever the system takes at a time.
void write_all(int descriptor, std::string_view bytes, const fs::path& path);
// Makes a file or folder durable.
void sync(int descriptor, const fs::path& path);
void sync_folder(const fs::path& path);

// Where `path` really is: a link to something that exists is followed. The name must be one of its own, not ".", ".." or "".
fs::path resolve(const fs::path& path);
// The folder that holds `path`: "." for a bare name.
fs::path parent_folder(const fs::path& path);
// A hidden neighbour of `path`: ".name" + suffix.
fs::path neighbour(const fs::path& path, const char* suffix);
// With the folders above it; what was made is durable.
void make_folders(const fs::path& path);
void rename(const fs::path& from, const fs::path& to);

}  // namespace molt::descriptors
