#include "train/run_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>

#include "base/descriptors.h"
#include "base/error.h"

namespace molt {

RunLock::RunLock(const fs::path& run) {
  descriptors::make_folders(run);
  descriptors::Descriptor folder = descriptors::open_file(run, O_RDONLY | O_DIRECTORY | O_CLOEXEC, "open");
  // A file system without locks is used without them.
  require(::flock(folder, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK, run.string(),
          ": another process is training in this run folder");
  descriptor_ = folder.release();
}

RunLock::~RunLock() {
  ::close(descriptor_);
}

}  // namespace molt
