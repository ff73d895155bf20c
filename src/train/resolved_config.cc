#include "train/resolved_config.h"

#include <map>
#include <set>

#include "base/config_tree.h"
#include "base/error.h"

namespace molt {

namespace resolved {

// What cannot change the numbers of a run; and what the guard does, because a run that it stopped goes on only if that changes.
const std::set<std::string>& harmless() {
  static const std::set<std::string> keys = {"output",           "log_every",  "log_layer_norms",    "evaluate_every",
                                             "checkpoint_every", "keep_every", "save_in_background", "keep_checkpoints",
                                             "nonfinite",        "spikes",     "most_skipped",       "tensorboard",
                                             "peak_tflops"};
  return keys;
}

void add_leaves(const config_tree::Node& node, const std::string& path, std::map<std::string, std::string>& leaves) {
  for (const config_tree::Entry& entry : node.entries) {
    add_leaves(*entry.value, path.empty() ? entry.key : path + "." + entry.key, leaves);
  }
  for (std::size_t i = 0; i < node.items.size(); ++i) add_leaves(*node.items[i], concat(path, "[", i, "]"), leaves);
  if (node.entries.empty() && node.items.empty()) leaves[path] = config_tree::shown(node);
}

std::map<std::string, std::string> leaves(const std::string& text, const std::string& origin) {
  std::map<std::string, std::string> result;
  add_leaves(*config_tree::parse(text, origin, false), "", result);
  return result;
}

bool changes_results(const ChangedKey& key) {
  const std::size_t dot = key.path.rfind('.');
  return !harmless().contains(dot == std::string::npos ? key.path : key.path.substr(dot + 1));
}

}  // namespace resolved

std::vector<ChangedKey> changed_keys(const std::string& before, const std::string& after) {
  const std::map<std::string, std::string> old = resolved::leaves(before, "the run's configuration");
  const std::map<std::string, std::string> fresh = resolved::leaves(after, "the new configuration");
  std::vector<ChangedKey> result;
  for (const auto& [path, value] : old) {
    const auto found = fresh.find(path);
    if (found == fresh.end() || found->second != value)
      result.push_back({path, value, found == fresh.end() ? "" : found->second});
  }
  for (const auto& [path, value] : fresh) {
    if (!old.contains(path)) result.push_back({path, "", value});
  }
  return result;
}

void keep_resolved_config(const fs::path& run, const std::string& config, bool continues) {
  const fs::path path = run / "config.yaml";
  if (fs::exists(path)) {
    const std::string before = read_file(path);
    if (before == config) return;
    std::string changes;
    for (const ChangedKey& key : changed_keys(before, config)) {
      if (!resolved::changes_results(key)) continue;
      changes += concat(changes.empty() ? "" : ", ", key.path, " (here ", key.before.empty() ? "absent" : key.before, ", now ",
                        key.after.empty() ? "absent" : key.after, ")");
    }
    require(!continues || changes.empty(), path.string(),
            ": the run that lies here was started with another configuration: ", changes,
            "; restore these keys to continue it, or choose another folder");
  }
  write_file(path, config);
}

}  // namespace molt
