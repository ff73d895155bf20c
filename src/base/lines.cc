#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/descriptors.h"
#include "base/error.h"
#include "base/files.h"

namespace molt {

namespace lines_detail {

// The length of the file up to and with its last newline.
off_t length_of_whole_lines(int descriptor, off_t size, const fs::path& path) {
  char block[4096];
  while (size > 0) {
    const off_t begin = std::max<off_t>(0, size - static_cast<off_t>(sizeof block));
    const ssize_t got = ::pread(descriptor, block, static_cast<std::size_t>(size - begin), begin);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) descriptors::fail_system(path, "read");
    const std::size_t newline = std::string_view(block, static_cast<std::size_t>(got)).rfind('\n');
    if (newline != std::string_view::npos) return begin + static_cast<off_t>(newline) + 1;
    size = begin;
  }
  return 0;
}

}  // namespace lines_detail

LineWriter::LineWriter(fs::path path) : path_(std::move(path)) {
  descriptors::make_folders(descriptors::parent_folder(path_));
  // Devices such as /dev/full or a pipe may be written only.
  std::error_code error;
  const fs::file_status existing = fs::status(path_, error);
  const bool regular = !fs::exists(existing) || fs::is_regular_file(existing);
  auto descriptor = descriptors::open_file(path_, (regular ? O_RDWR : O_WRONLY) | O_CREAT | O_APPEND, "write");
  struct stat status;
  if (regular && fstat(descriptor, &status) == 0) {
    const off_t whole = lines_detail::length_of_whole_lines(descriptor, status.st_size, path_);
    if (whole < status.st_size && ::ftruncate(descriptor, whole) != 0)
      descriptors::fail_system(path_, "cut off its torn last line");
  }
  descriptor_ = descriptor.release();
}

LineWriter::~LineWriter() {
  ::close(descriptor_);
}

void LineWriter::append(std::string_view line) {
  MOLT_CHECK(line.find('\n') == std::string_view::npos, "a line for ", path_.string(), " holds a newline");
  std::string whole(line);
  whole += '\n';
  std::size_t done = 0;
  while (done < whole.size()) {
    const ssize_t written = ::write(descriptor_, whole.data() + done, whole.size() - done);
    if (written >= 0) {
      done += static_cast<std::size_t>(written);
    } else if (errno != EINTR) {
      const int reason = errno;
      const off_t end = ::lseek(descriptor_, 0, SEEK_END);
      if (done > 0 && end >= 0) [[maybe_unused]]
        const int cut = ::ftruncate(descriptor_, end - static_cast<off_t>(done));
      errno = reason;
      descriptors::fail_system(path_, "write");
    }
  }
}

LineReader::LineReader(std::string_view text, fs::path path) : text_(text), path_(std::move(path)) {
  constexpr std::string_view byte_order_mark = "\xef\xbb\xbf";
  if (text_.starts_with(byte_order_mark)) position_ = byte_order_mark.size();
}

LineReader::LineReader(const fs::path& path) {
  auto file = MappedFile::open(path, Access::sequential);
  *this = LineReader(file->text(), path);
  file_ = std::move(file);
}

bool LineReader::next(std::string_view& line) {
  const std::string_view rest = text_.substr(position_);
  if (rest.empty()) return false;
  const std::size_t newline = rest.find('\n');
  line = rest.substr(0, newline);
  position_ += newline == std::string_view::npos ? rest.size() : newline + 1;
  if (line.ends_with('\r')) line.remove_suffix(1);
  ++number_;
  return true;
}

std::string LineReader::place() const {
  return concat(path_.string(), ":", number_);
}

}  // namespace molt
