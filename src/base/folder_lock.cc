#include "base/folder_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>

#include "base/descriptors.h"
#include "base/error.h"

namespace molt {

FolderLock::FolderLock(const fs::path& folder) {
  descriptors::make_folders(folder);
  descriptors::Descriptor held = descriptors::open_file(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC, "open");
  // A file system without locks is used without them.
  require(::flock(held, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK, folder.string(),
          ": another process is at work in this folder");
  descriptor_ = held.release();
}

FolderLock::~FolderLock() {
  ::close(descriptor_);
}

}  // namespace molt
