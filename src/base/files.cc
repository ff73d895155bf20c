#include "base/files.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/descriptors.h"
#include "base/error.h"

namespace molt {

using descriptors::Descriptor;

namespace files_detail {

constexpr std::size_t buffer_bytes = 1 << 16;

std::string read_all(int descriptor, const fs::path& path, std::size_t expected) {
  std::string content;
  std::size_t filled = 0;
  while (true) {
    // One byte more than expected shows the end without another round.
    content.resize(std::max(expected + 1, filled + buffer_bytes));
    while (filled < content.size()) {
      const ssize_t got = ::read(descriptor, content.data() + filled, content.size() - filled);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) descriptors::fail_system(path, "read");
      if (got == 0) {
        content.resize(filled);
        return content;
      }
      filled += static_cast<std::size_t>(got);
    }
  }
}

struct stat status_of(int descriptor, const fs::path& path) {
  struct stat status;
  if (fstat(descriptor, &status) != 0) descriptors::fail_system(path, "read");
  return status;
}

int advice(Access access) {
  switch (access) {
    case Access::normal:
      return MADV_NORMAL;
    case Access::sequential:
      return MADV_SEQUENTIAL;
    case Access::random:
      return MADV_RANDOM;
  }
  return MADV_NORMAL;
}

}  // namespace files_detail

std::shared_ptr<const MappedFile> MappedFile::open(const fs::path& path, Access access) {
  const Descriptor descriptor = descriptors::open_file(path, O_RDONLY, "open");
  const struct stat status = files_detail::status_of(descriptor, path);
  const bool mappable = S_ISREG(status.st_mode);
  const std::string content = mappable ? "" : files_detail::read_all(descriptor, path, 0);

  std::shared_ptr<MappedFile> file(new MappedFile);
  file->path_ = path;
  const std::size_t size = mappable ? static_cast<std::size_t>(status.st_size) : content.size();
  if (size == 0) return file;
  void* data = mappable ? ::mmap(nullptr, size, PROT_READ, MAP_SHARED, descriptor, 0)
                        : ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) descriptors::fail_system(path, "map into memory");
  file->data_ = static_cast<const std::byte*>(data);
  file->size_ = size;
  if (mappable)
    ::madvise(data, size, files_detail::advice(access));
  else
    std::memcpy(data, content.data(), size);
  return file;
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(const_cast<std::byte*>(data_), size_);
}

std::string read_file(const fs::path& path) {
  const Descriptor descriptor = descriptors::open_file(path, O_RDONLY, "open");
  return files_detail::read_all(descriptor, path, static_cast<std::size_t>(files_detail::status_of(descriptor, path).st_size));
}

void refuse_lfs_pointer(std::string_view content, const std::string& place) {
  require(!content.starts_with("version https://git-lfs"), place,
          ": found a pointer of git-lfs, expected the file itself, which git lfs pull fetches");
}

void write_file(const fs::path& path, std::string_view content) {
  AtomicFile file(path);
  file.write(content);
  file.commit();
}

AtomicFile::AtomicFile(fs::path path) : path_(std::move(path)), final_(descriptors::resolve(path_)) {
  require(path_.has_filename(), path_.string(), ": found the name of a folder, expected one of a file");
  std::error_code error;
  const fs::file_status existing = fs::status(final_, error);
  if (fs::exists(existing) && !fs::is_regular_file(existing)) {
    descriptor_ = descriptors::open_file(path_, O_WRONLY, "write").release();
    return;
  }
  descriptors::make_folders(descriptors::parent_folder(final_));
  temporary_ = descriptors::neighbour(final_, ".partial");
  Descriptor descriptor = descriptors::open_temporary(temporary_, O_RDWR | O_CREAT, path_);
  if (::ftruncate(descriptor, 0) != 0) descriptors::fail_system(path_, "write");
  descriptor_ = descriptor.release();
}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
  ::close(descriptor_);
}

void AtomicFile::write(const void* data, std::size_t bytes) {
  MOLT_CHECK(descriptor_ >= 0, path_.string(), " is already committed");
  const std::string_view piece(static_cast<const char*>(data), bytes);
  position_ += bytes;
  if (buffer_.size() + bytes > files_detail::buffer_bytes) flush();
  if (bytes > files_detail::buffer_bytes)
    descriptors::write_all(descriptor_, piece, path_);
  else
    buffer_ += piece;
}

void AtomicFile::flush() {
  descriptors::write_all(descriptor_, buffer_, path_);
  buffer_.clear();
}

void AtomicFile::commit() {
  MOLT_CHECK(descriptor_ >= 0, path_.string(), " is already committed");
  flush();
  descriptors::sync(descriptor_, path_);
  if (!temporary_.empty()) {
    descriptors::rename(temporary_, final_);
    temporary_.clear();
    descriptors::sync_folder(descriptors::parent_folder(final_));
  }
  ::close(std::exchange(descriptor_, -1));
}

}  // namespace molt
