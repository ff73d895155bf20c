#include "formats/folder_fingerprint.h"

#include <algorithm>
#include <map>

#include "base/checksum.h"
#include "base/error.h"
#include "base/random.h"
#include "formats/peft.h"
#include "formats/safetensors.h"

namespace molt {

namespace folder_prints {

std::uint64_t sampled(std::uint64_t hash, std::string_view bytes) {
  constexpr std::size_t pieces = 64, piece = 64;
  const std::size_t stride = std::max(bytes.size() / pieces, piece);
  for (std::size_t begin = 0; begin < bytes.size(); begin += stride) hash = derive_seed(hash, bytes.substr(begin, piece));
  return hash;
}

std::uint64_t of_tensors(std::uint64_t hash, const std::vector<SafetensorsFile>& files) {
  std::map<std::string, std::uint64_t> prints;
  for (const SafetensorsFile& file : files) {
    for (const TensorInfo& tensor : file.tensors()) {
      const std::string about = concat(safetensors_dtype(tensor.dtype), shape_text(tensor.shape));
      prints[tensor.name] = sampled(derive_seed(0, about), file.bytes(tensor));
    }
  }
  for (const auto& [name, print] : prints) hash = derive_seed(hash, name, print);
  return hash;
}

}  // namespace folder_prints

std::string folder_fingerprint(const fs::path& folder) {
  const fs::path base = base_folder(folder);
  std::uint64_t hash = derive_seed(0, read_file(base / "config.json"));
  hash = folder_prints::of_tensors(hash, SafetensorsFolder::open(base).files());
  if (is_adapter_folder(folder)) {
    hash = derive_seed(hash, read_file(folder / "adapter_config.json"));
    hash = folder_prints::of_tensors(hash, {SafetensorsFile::open(folder / "adapter_model.safetensors")});
  }
  return fingerprint_text(hash);
}

}  // namespace molt
