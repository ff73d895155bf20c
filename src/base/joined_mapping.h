// Ranges of mapped files that lie apart, seen as one range of memory.
#pragma once
#include <cstddef>
#include <memory>
#include <string_view>
#include <vector>

namespace molt {

// The pages of the ranges are mapped once more, side by side; only those in which two ranges meet are copied. Read-only, and
// valid whatever becomes of the files' own mappings.
class JoinedMapping {
 public:
  // `ranges` of MappedFiles, of any files. Null where that cannot be done: each range must begin at the place in a page at which
  // the one before it ends, and the files must be regular ones.
  static std::shared_ptr<const JoinedMapping> of(const std::vector<std::string_view>& ranges);
  ~JoinedMapping();
  JoinedMapping(const JoinedMapping&) = delete;
  JoinedMapping& operator=(const JoinedMapping&) = delete;

  const std::byte* data() const { return region_ + offset_; }
  std::size_t size() const { return size_; }

 private:
  JoinedMapping() = default;
  std::byte* region_ = nullptr;
  std::size_t offset_ = 0, size_ = 0;  // of the ranges in the region
};

}  // namespace molt
