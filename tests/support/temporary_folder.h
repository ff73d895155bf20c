// A folder that is there for one test.
#pragma once
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "base/files.h"

namespace molt {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (fs::temp_directory_path() / "molt-test-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  ~TemporaryFolder() { fs::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

// Tests that each begin with an empty folder.
class FolderTest : public ::testing::Test {
 private:
  TemporaryFolder temporary_;

 protected:
  const fs::path& folder = temporary_.path();
};

}  // namespace molt
