// The header of a safetensors file: which tensors it has and where their data lies. Needs no tensors, so that it can be read,
// and tried with broken files, without LibTorch.
#pragma once
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace molt {

// One tensor of a file, as its header describes it.
struct TensorInfo {
  std::string name;
  c10::ScalarType dtype = c10::kFloat;
  std::vector<std::int64_t> shape = {};
  std::uint64_t begin = 0, end = 0;  // bytes from the start of the data

  std::uint64_t bytes() const { return end - begin; }
};

// "F32", "BF16": a dtype's name on disk. A dtype that the format does not have is a bug.
std::string safetensors_dtype(c10::ScalarType dtype);

struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;  // in the order of their data
  std::map<std::string, std::string> metadata;
  std::uint64_t data_start = 0;  // bytes from the start of the file
};

// Reads and checks the header of a whole file: known dtypes, sizes that agree with shapes, unique names, data that covers the
// rest of the file without gap or overlap. UserError, beginning with `place`, otherwise. Reads the text once, without building a
// tree: memory stays a small multiple of it and nesting is refused at once.
SafetensorsHeader read_safetensors_header(std::string_view file, const std::string& place);

// The header for `tensors`, padded with spaces so that the data behind it starts at a multiple of 64 bytes from the file's start.
std::string format_safetensors_header(const std::vector<TensorInfo>& tensors, const std::map<std::string, std::string>& metadata);

}  // namespace molt
