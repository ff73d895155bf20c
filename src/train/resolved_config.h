// The resolved configuration that a run keeps beside its results.
#pragma once
#include <string>
#include <vector>

#include "base/files.h"

namespace molt {

struct ChangedKey {
  std::string path;           // "training.optimizer.learning_rate", "trainable[1]"
  std::string before, after;  // empty where the key is absent
};

// The keys whose values differ between two YAML texts.
std::vector<ChangedKey> changed_keys(const std::string& before, const std::string& after);

// Writes <run>/config.yaml. When the run has something to continue, a different configuration there is a UserError that names the
// keys; how often it logs, evaluates and saves may change, and what the guard does.
void keep_resolved_config(const fs::path& run, const std::string& config, bool continues);

}  // namespace molt
