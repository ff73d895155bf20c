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

// The keys whose values differ between two YAML texts; errors of the first name it by `place`.
std::vector<ChangedKey> changed_keys(const std::string& before, const std::string& after, const std::string& place);

// Those between <run>/config.yaml and `config` that change what a run computes: all but how often it logs, evaluates and saves,
// and what the guard does. None where the run has no configuration yet.
std::vector<ChangedKey> changed_results(const fs::path& run, const std::string& config);

// What becomes of a run that is continued with another configuration, from other data, or beside other models than before.
enum class Changes {
  refuse,
  offer,   // refuse, and say that --accept-changes would go on
  accept,  // go on from the last checkpoint
};

// "training.steps (here "24", now "30"), data.path (…)", of many the first ones and how many more there are.
std::string changes_text(const std::vector<ChangedKey>& changes);
// Whether the run's dtype is among them: then the content of models that were read in it differs, too.
bool other_dtype(const std::vector<ChangedKey>& changes);
// UserError that names them unless there are none, or they are accepted; for another dtype also the option that restores it.
void require_unchanged(const fs::path& run, const std::vector<ChangedKey>& changes, Changes how);

// Writes <run>/config.yaml. When the run has something to continue, a configuration that changes its results is a UserError.
void keep_resolved_config(const fs::path& run, const std::string& config, bool continues);

}  // namespace molt
