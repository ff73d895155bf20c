// The JSON header of a safetensors file.
#pragma once
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "formats/safetensors.h"

namespace molt {

struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;  // in the order of their data
  std::map<std::string, std::string> metadata;
};

// Parses and checks a header: known dtypes, sizes that agree with shapes, unique names, data that covers [0, data_bytes) without
// gap or overlap. Reads the text once, without building a tree: memory stays a small multiple of it and nesting is refused at
// once.
SafetensorsHeader parse_safetensors_header(std::string_view json, std::uint64_t data_bytes, const std::string& place);

// The header for `tensors`, padded with spaces so that the data behind it starts at a multiple of 64 bytes from the file's start.
std::string format_safetensors_header(const std::vector<TensorInfo>& tensors, const std::map<std::string, std::string>& metadata);

}  // namespace molt
