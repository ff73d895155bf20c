#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "base/json.h"
#include "formats/safetensors.h"

namespace molt {
namespace safetensors_folder {

// A shard is a plain name: the index of a downloaded model must not reach outside its folder.
bool plain_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find_first_of(std::string("/\\\0", 3)) == std::string::npos;
}

std::map<std::string, std::string> read_index(const fs::path& path) {
  const Json index = read_json(path);
  const std::string place = path.string();
  require(index.is_object() && index.contains("weight_map") && index["weight_map"].is_object(), place,
          ": weight_map: expected an object of tensor names and shards");
  std::map<std::string, std::string> shards;
  for (const auto& [tensor, shard] : index["weight_map"].items()) {
    require(shard.is_string() && plain_name(shard.get_ref<const std::string&>()), place, ": weight_map: ", tensor, ": found ",
            to_line(shard), ", expected the name of a file in the same folder");
    shards[tensor] = shard.get<std::string>();
  }
  return shards;
}

// Why there is nothing to open: weights in another form, or shards without their index, are named.
[[noreturn]] void fail_without_weights(const fs::path& folder) {
  constexpr std::string_view weights[] = {".safetensors", ".bin", ".pt", ".pth", ".gguf"};
  std::set<std::string> found;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (std::find(std::begin(weights), std::end(weights), entry.path().extension().string()) != std::end(weights))
      found.insert(entry.path().filename().string());
  }
  fail(folder.string(), ": found ", found.empty() ? "no weights" : *found.begin(),
       ", expected model.safetensors or model.safetensors.index.json with its shards: transformers' save_pretrained writes them");
}

}  // namespace safetensors_folder

SafetensorsFolder SafetensorsFolder::open(const fs::path& folder) {
  SafetensorsFolder result;
  const fs::path single = folder / "model.safetensors", index = folder / "model.safetensors.index.json";
  if (fs::exists(single) || !fs::exists(index)) {
    if (!fs::exists(single)) safetensors_folder::fail_without_weights(folder);
    result.listing_ = single;
    result.files_.push_back(SafetensorsFile::open(single));
    return result;
  }
  result.listing_ = index;
  const auto shards = safetensors_folder::read_index(index);
  std::set<std::string> names;
  for (const auto& [tensor, shard] : shards) names.insert(shard);
  for (const std::string& name : names) {
    require(fs::exists(folder / name), index.string(), ": weight_map: names ", name, ", which is not in the folder");
    result.files_.push_back(SafetensorsFile::open(folder / name));
    for (const TensorInfo& tensor : result.files_.back().tensors()) {
      auto listed = shards.find(tensor.name);
      require(listed != shards.end() && listed->second == name, (folder / name).string(), ": found tensor ", tensor.name,
              ", which ", index.filename().string(), listed == shards.end() ? " does not list" : " puts into " + listed->second);
    }
  }
  for (const auto& [tensor, shard] : shards) {
    require(result.holder(tensor) != nullptr, (folder / shard).string(), ": found no tensor ", tensor, ", which ",
            index.filename().string(), " puts there");
  }
  return result;
}

const SafetensorsFile* SafetensorsFolder::holder(const std::string& name) const {
  auto found = std::find_if(files_.begin(), files_.end(), [&](const SafetensorsFile& file) { return file.find(name); });
  return found == files_.end() ? nullptr : &*found;
}

}  // namespace molt
