// The records of an input file, some at a time, each as the text of a JSON object.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/files.h"

namespace molt {

class Records {
 public:
  struct Record {
    std::int64_t number;  // from 1: of the line, or of the row
    std::string_view text;
  };

  virtual ~Records() = default;
  // Up to `most` further ones; none at the end. They stay valid until the next call.
  virtual std::vector<Record> next(std::size_t most) = 0;
  // Of the last one read.
  virtual std::int64_t number() const = 0;
  // Bytes of the file, compressed as they are, that were read.
  virtual std::int64_t position() const = 0;
};

// Lines of JSONL, plain or compressed (line_batches.h), or the rows of a Parquet file (parquet_rows.h), told by the file's first
// bytes. Of a row only the columns called one of `keys` are read. UserError where a build has no Parquet.
std::unique_ptr<Records> open_records(const fs::path& path, const std::vector<std::string>& keys);

}  // namespace molt
