// Files that are whole or absent: everything written appears under its name by rename after fsync. Errors are UserError and
// name the path ("runs/a/metrics.jsonl: cannot write: No space left on device").
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace molt {

namespace fs = std::filesystem;

// How a mapped file will be read, which tells the kernel what to fetch ahead and what to drop behind.
enum class Access { normal, sequential, random };

// A file mapped read-only and shared; stays valid while any copy of the pointer lives. An empty file maps to no bytes, a pipe is
// read to its end into memory.
class MappedFile {
 public:
  static std::shared_ptr<const MappedFile> open(const fs::path& path, Access access = Access::normal);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }
  std::string_view text() const { return {reinterpret_cast<const char*>(data_), size_}; }
  const fs::path& path() const { return path_; }

 private:
  MappedFile() = default;
  fs::path path_;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

std::string read_file(const fs::path& path);
// UserError where the content is what git-lfs leaves in the place of a file that it has not fetched.
void refuse_lfs_pointer(std::string_view content, const std::string& place);
void write_file(const fs::path& path, std::string_view content);

// A file written in pieces beside its final name; commit() makes it durable and renames it, destruction without it leaves
// nothing.
class AtomicFile {
 public:
  explicit AtomicFile(fs::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  void write(const void* data, std::size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  std::uint64_t position() const { return position_; }
  void commit();

 private:
  void flush();

  fs::path path_, final_, temporary_;  // as named by the caller, with links resolved, empty when written directly
  int descriptor_ = -1;
  std::uint64_t position_ = 0;
  std::string buffer_;
};

// A folder filled under a temporary name beside its final one (".name.partial"); commit() makes its files durable and renames it,
// replacing an existing folder of that name. Destruction without commit() removes it. Leftovers of killed processes are removed
// on the next use.
class AtomicFolder {
 public:
  explicit AtomicFolder(fs::path path);
  ~AtomicFolder();
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;
  const fs::path& path() const { return temporary_; }  // where to write before commit()
  void commit();

 private:
  fs::path path_, temporary_;
  int lock_ = -1;
};

// Lines appended to a file, each written whole with one system call: a killed process leaves at most one torn last line.
class LineWriter {
 public:
  // Opens for appending, makes missing parent folders, and first cuts off a torn last line.
  explicit LineWriter(fs::path path);
  ~LineWriter();
  LineWriter(const LineWriter&) = delete;
  LineWriter& operator=(const LineWriter&) = delete;
  void append(std::string_view line);  // without the newline

 private:
  fs::path path_;
  int descriptor_ = -1;
};

// The lines of a text file without their ends (LF or CR LF) and without a byte-order mark, lazily: for (LineReader in(path);
// in.next(line);) … in.number() counts from 1.
class LineReader {
 public:
  explicit LineReader(const fs::path& path);
  // Of a text in memory, which must stay there, as if it stood in a file of that name.
  LineReader(std::string_view text, fs::path path);
  bool next(std::string_view& line);
  std::int64_t number() const { return number_; }
  std::int64_t position() const { return static_cast<std::int64_t>(position_); }  // bytes read so far
  // "path:number" for messages.
  std::string place() const;

 private:
  std::shared_ptr<const MappedFile> file_;  // null where the text is the caller's
  std::string_view text_;
  fs::path path_;
  std::size_t position_ = 0;
  std::int64_t number_ = 0;
};

}  // namespace molt
