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

// Those between <run>/config.yaml and `config` that change what a run computes: all but how often it logs, evaluates and saves,
// and what the guard does. None where the run has no configuration yet.
std::vector<ChangedKey> changed_results(const fs::path& run, const std::string& config);
// UserError that names them; none for no keys. `advice` ends it: what else can be done than to restore them.
void require_unchanged(const fs::path& run, const std::vector<ChangedKey>& changes, const std::string& advice);

// Writes <run>/config.yaml. When the run has something to continue, a configuration that changes its results is a UserError.
void keep_resolved_config(const fs::path& run, const std::string& config, bool continues);

}  // namespace molt
