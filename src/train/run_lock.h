// One process at a time works in a run folder.
#pragma once
#include "base/files.h"

namespace molt {

// Makes the folder if need be and holds it until destruction or the end of the process, however it ends. UserError when another
// process holds it.
class RunLock {
 public:
  explicit RunLock(const fs::path& run);
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

 private:
  int descriptor_ = -1;
};

}  // namespace molt
