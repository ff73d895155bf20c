// libFuzzer on safetensors files: a file that is none ends in a UserError; of one that is, the tensors' data lie side by side
// and fill the file, and a header written for them reads as the same tensors.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"
#include "formats/safetensors_header.h"

namespace {

bool same(const molt::TensorInfo& a, const molt::TensorInfo& b) {
  return a.name == b.name && a.dtype == b.dtype && a.shape == b.shape && a.begin == b.begin && a.end == b.end;
}

// A file with this header and the data of `file`.
std::string rewritten(const molt::SafetensorsHeader& header, std::string_view file) {
  const std::string json = molt::format_safetensors_header(header.tensors, header.metadata);
  const std::uint64_t length = json.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof length) + json + std::string(file.substr(header.data_start));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view file(reinterpret_cast<const char*>(data), size);
  try {
    const molt::SafetensorsHeader header = molt::read_safetensors_header(file, "fuzz");
    std::uint64_t position = header.data_start;
    for (const molt::TensorInfo& tensor : header.tensors) {
      if (header.data_start + tensor.begin != position || tensor.end < tensor.begin) __builtin_trap();
      position = header.data_start + tensor.end;
    }
    if (position != size) __builtin_trap();
    const molt::SafetensorsHeader again = molt::read_safetensors_header(rewritten(header, file), "written");
    if (again.metadata != header.metadata || again.tensors.size() != header.tensors.size()) __builtin_trap();
    for (std::size_t i = 0; i < header.tensors.size(); ++i) {
      if (!same(again.tensors[i], header.tensors[i])) __builtin_trap();
    }
  } catch (const molt::UserError&) {
  }
  return 0;
}
