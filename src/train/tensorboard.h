// Figures as a TensorBoard event file: TFRecord frames of Event messages (tensorflow/core/util/event.proto), written without
// either library. A frame is
//   uint64 length | uint32 masked CRC-32C of length | data | uint32 masked CRC-32C of data       (little endian)
// with mask(c) = ((c >> 15) | (c << 17)) + 0xa282ead8.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "base/files.h"

namespace molt {

class TensorBoardFile {
 public:
  // A new file in `folder`; what earlier files of the folder say of steps from `first_step` on is void. UserError when it cannot
  // be written, here and below.
  TensorBoardFile(const fs::path& folder, std::int64_t first_step);
  ~TensorBoardFile();
  TensorBoardFile(const TensorBoardFile&) = delete;
  TensorBoardFile& operator=(const TensorBoardFile&) = delete;

  void scalars(std::int64_t step, const std::map<std::string, double>& values);

 private:
  void event(std::int64_t step, std::string_view what);

  fs::path path_;
  int descriptor_ = -1;
};

}  // namespace molt
