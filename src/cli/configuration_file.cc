#include "cli/configuration_file.h"

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "base/files.h"

namespace molt {
namespace configuration_files {

// By the end of its name, a compressed file by the name within.
bool ends_with_any(fs::path file, const std::vector<std::string>& endings) {
  if (file.extension() == ".gz" || file.extension() == ".zst") file = file.stem();
  return std::find(endings.begin(), endings.end(), file.extension().string()) != endings.end();
}

}  // namespace configuration_files

void check_configuration_file(const std::string& path, const ElsewhereHints& hints) {
  using configuration_files::ends_with_any;
  const auto refuse = [&](const char* found, const std::string& hint) {
    fail(path, ": found ", found, ", expected a YAML file; ", hint);
  };
  if (fs::is_directory(path)) refuse("a folder", hints.model);
  if (ends_with_any(path, {".jsonl", ".parquet", ".csv", ".txt"})) refuse("data", hints.data);
  if (ends_with_any(path, {".safetensors", ".bin", ".pt", ".gguf"})) refuse("weights", hints.model);
}

}  // namespace molt
