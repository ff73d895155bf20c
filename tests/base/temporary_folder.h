// An empty folder for each test of this room.
#pragma once
#include <gtest/gtest.h>
#include <unistd.h>

#include <string>

#include "base/error.h"
#include "base/files.h"
#include "support/error_of.h"

namespace molt::testing_base {

// An empty folder that lives as long as the test.
class TemporaryFolder : public testing::Test {
 protected:
  TemporaryFolder() {
    std::string pattern = (fs::temp_directory_path() / "molt-base-XXXXXX").string();
    folder = mkdtemp(pattern.data());
  }
  ~TemporaryFolder() override { fs::remove_all(folder); }

  // The names in the folder, sorted, hidden ones too.
  std::string names() const {
    std::vector<std::string> all;
    for (const auto& entry : fs::directory_iterator(folder)) all.push_back(entry.path().filename().string());
    std::sort(all.begin(), all.end());
    std::string text;
    for (const std::string& name : all) text += (text.empty() ? "" : " ") + name;
    return text;
  }

  fs::path folder;
};

}  // namespace molt::testing_base
