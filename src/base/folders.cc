#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <system_error>
#include <utility>

#include "base/descriptors.h"
#include "base/error.h"
#include "base/files.h"

namespace molt {

using descriptors::Descriptor;

namespace folders_detail {

bool is_there(const fs::path& path) {
  std::error_code error;
  return fs::exists(fs::symlink_status(path, error));
}

void remove_tree(const fs::path& path) {
  std::error_code error;
  fs::remove_all(path, error);
  require(!error, path.string(), ": cannot remove: ", error.message());
}

void remove_content(const fs::path& path) {
  std::error_code error;
  for (fs::directory_iterator entry(path, error), end; !error && entry != end; entry.increment(error)) remove_tree(entry->path());
  require(!error, path.string(), ": cannot read the folder: ", error.message());
}

void sync_tree(const fs::path& root) {
  std::error_code error;
  for (fs::recursive_directory_iterator entry(root, error), end; !error && entry != end; entry.increment(error)) {
    const fs::path& path = entry->path();
    if (entry->is_symlink()) continue;
    if (entry->is_directory()) descriptors::sync_folder(path);
    if (entry->is_regular_file()) descriptors::sync(descriptors::open_file(path, O_RDONLY, "open"), path);
  }
  require(!error, root.string(), ": cannot read the folder: ", error.message());
  descriptors::sync_folder(root);
}

// Where a replaced folder waits when the file system cannot exchange two names in one step.
fs::path aside(const fs::path& path) {
  return descriptors::neighbour(path, ".old");
}

// A process killed between the two renames of replace() leaves the old folder aside only: it comes back.
void recover(const fs::path& path) {
  if (!is_there(aside(path))) return;
  if (is_there(path))
    remove_tree(aside(path));
  else
    descriptors::rename(aside(path), path);
}

// Puts `fresh` in the place of `path`; returns where the old folder is now.
fs::path replace(const fs::path& fresh, const fs::path& path) {
  if (::renameat2(AT_FDCWD, fresh.c_str(), AT_FDCWD, path.c_str(), RENAME_EXCHANGE) == 0) return fresh;
  if (errno != EINVAL && errno != ENOSYS && errno != ENOTSUP) descriptors::fail_system(path, "replace");
  descriptors::rename(path, aside(path));
  try {
    descriptors::rename(fresh, path);
  } catch (...) {
    descriptors::rename(aside(path), path);
    throw;
  }
  return aside(path);
}

}  // namespace folders_detail

AtomicFolder::AtomicFolder(fs::path path) : path_(descriptors::resolve(path)) {
  std::error_code error;
  const fs::file_status existing = fs::status(path_, error);
  require(!fs::exists(existing) || fs::is_directory(existing), path.string(), ": found a file, expected a folder");
  descriptors::make_folders(descriptors::parent_folder(path_));
  temporary_ = descriptors::neighbour(path_, ".partial");
  Descriptor lock = descriptors::open_temporary(temporary_, O_RDONLY | O_DIRECTORY, path_);
  folders_detail::remove_content(temporary_);
  folders_detail::recover(path_);
  lock_ = lock.release();
}

AtomicFolder::~AtomicFolder() {
  if (lock_ < 0) return;
  std::error_code ignored;
  fs::remove_all(temporary_, ignored);
  ::close(lock_);
}

void AtomicFolder::commit() {
  MOLT_CHECK(lock_ >= 0, path_.string(), " is already committed");
  folders_detail::sync_tree(temporary_);
  fs::path old;
  if (folders_detail::is_there(path_))
    old = folders_detail::replace(temporary_, path_);
  else
    descriptors::rename(temporary_, path_);
  const Descriptor lock(std::exchange(lock_, -1));
  descriptors::sync_folder(descriptors::parent_folder(path_));
  // The new folder is in place: an old one that cannot be removed now goes on the next use.
  std::error_code ignored;
  if (!old.empty()) fs::remove_all(old, ignored);
}

}  // namespace molt
