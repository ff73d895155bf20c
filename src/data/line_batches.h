// Lines of a text file that may be compressed, some at a time.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/files.h"
#include "data/records.h"

namespace molt {

// Decompresses what it is given piece by piece.
class Inflater {
 public:
  virtual ~Inflater() = default;
  // Appends up to about 256 KiB to `out`; false at the end of the data. UserError when the data is broken or cut off.
  virtual bool more(std::string& out) = 0;
  // Compressed bytes taken so far.
  virtual std::size_t taken() const = 0;
};
// For gzip (RFC 1952, several members one behind the other too) or Zstandard (RFC 8878, several frames too) by the file's first
// bytes; null for anything else.
std::unique_ptr<Inflater> make_inflater(std::shared_ptr<const MappedFile> file);

class LineBatches : public Records {
 public:
  explicit LineBatches(const fs::path& path);
  // Lines without their ends (LF or CR LF) and without a byte-order mark.
  std::vector<Record> next(std::size_t most) override;
  std::int64_t number() const override { return number_; }
  std::int64_t position() const override;

 private:
  bool refill();

  std::shared_ptr<const MappedFile> file_;
  std::unique_ptr<Inflater> inflater_;  // null: the file is read where it is mapped
  std::string buffer_;                  // what was inflated
  std::string_view rest_;               // of the file, or of buffer_
  std::int64_t number_ = 0;
};

}  // namespace molt
