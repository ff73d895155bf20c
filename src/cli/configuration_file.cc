#include "cli/configuration_file.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/config_tree.h"
#include "base/error.h"
#include "base/files.h"

namespace molt {
namespace configuration_files {

// By the end of its name, a compressed file by the name within.
bool ends_with_any(fs::path file, const std::vector<std::string>& endings) {
  if (file.extension() == ".gz" || file.extension() == ".zst") file = file.stem();
  return std::find(endings.begin(), endings.end(), file.extension().string()) != endings.end();
}

struct Kind {
  const char* name;
  const char* command;
};

Kind named(ConfigurationKind kind) {
  switch (kind) {
    case ConfigurationKind::training:
      return {"a training's configuration", "molt train"};
    case ConfigurationKind::recipe:
      return {"a recipe", "molt distill"};
    case ConfigurationKind::preparation:
      return {"a configuration of prepare", "molt prepare"};
  }
  return {};
}

// Keys that files of one kind alone have at the top.
constexpr std::pair<const char*, ConfigurationKind> telltales[] = {{"model", ConfigurationKind::training},
                                                                   {"stages", ConfigurationKind::recipe},
                                                                   {"teacher", ConfigurationKind::recipe},
                                                                   {"input", ConfigurationKind::preparation}};

// Refuses a file that has keys of other kinds and none of its own.
void check_kind(const std::string& path, ConfigurationKind expected) {
  const config_tree::NodePointer root = config_tree::parse(read_file(path), path, /*with_lines=*/true);
  const config_tree::Entry* found = nullptr;
  ConfigurationKind other = expected;
  for (const auto& [key, kind] : telltales) {
    const config_tree::Entry* entry = root->find(key);
    if (entry && kind == expected) return;
    if (entry && !found) found = entry, other = kind;
  }
  if (!found) return;
  fail(found->origin, ": ", found->key, ": found ", named(other).name, ", which `", named(other).command, "` reads, expected ",
       named(expected).name);
}

}  // namespace configuration_files

void check_configuration_file(const std::string& path, ConfigurationKind kind, const ElsewhereHints& hints) {
  using configuration_files::ends_with_any;
  const auto refuse = [&](const char* found, const std::string& hint) {
    fail(path, ": found ", found, ", expected a YAML file; ", hint);
  };
  if (fs::is_directory(path)) refuse("a folder", hints.model);
  if (ends_with_any(path, {".jsonl", ".parquet", ".csv", ".txt"})) refuse("data", hints.data);
  if (ends_with_any(path, {".safetensors", ".bin", ".pt", ".gguf"})) refuse("weights", hints.model);
  if (fs::is_regular_file(path)) configuration_files::check_kind(path, kind);  // a pipe is read only once
}

}  // namespace molt
