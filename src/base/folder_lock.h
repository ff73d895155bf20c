// One process at a time works in a folder: a run's, a data set's, a recipe's.
#pragma once
#include "base/files.h"

namespace molt {

// Makes the folder if need be and holds it until destruction or the end of the process, however it ends. UserError when another
// process holds it.
class FolderLock {
 public:
  explicit FolderLock(const fs::path& folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int descriptor_ = -1;
};

}  // namespace molt
