#include "train/resolved_config.h"

#include <algorithm>
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
  if (node.entries.empty() && node.items.empty() && !path.empty()) leaves[path] = config_tree::shown(node);
}

std::map<std::string, std::string> leaves(const std::string& text, const std::string& origin) {
  std::map<std::string, std::string> result;
  add_leaves(*config_tree::parse(text, origin, false), "", result);
  return result;
}

// Whether a whole section that `path` lies in is a single leaf there: absent, or empty.
bool lies_in_leaf(const std::map<std::string, std::string>& leaves, const std::string& path) {
  for (std::size_t end = path.find_last_of(".["); end != std::string::npos && end > 0; end = path.find_last_of(".[", end - 1)) {
    if (leaves.contains(path.substr(0, end))) return true;
  }
  return false;
}

// The leaf's value; "given" for a section of leaves, "" where there is nothing.
std::string value_at(const std::map<std::string, std::string>& leaves, const std::string& path) {
  if (const auto found = leaves.find(path); found != leaves.end()) return found->second;
  for (const char* sign : {".", "["}) {
    const auto inside = leaves.lower_bound(path + sign);
    if (inside != leaves.end() && inside->first.starts_with(path + sign)) return "given";
  }
  return "";
}

bool changes_results(const ChangedKey& key) {
  const std::size_t dot = key.path.rfind('.');
  return !harmless().contains(dot == std::string::npos ? key.path : key.path.substr(dot + 1));
}

}  // namespace resolved

std::vector<ChangedKey> changed_keys(const std::string& before, const std::string& after, const std::string& place) {
  const std::map<std::string, std::string> old = resolved::leaves(before, place);
  const std::map<std::string, std::string> fresh = resolved::leaves(after, "the new configuration");
  std::vector<ChangedKey> result;
  for (const auto& [path, value] : old) {
    const std::string now = resolved::value_at(fresh, path);
    if (now != value && !resolved::lies_in_leaf(fresh, path)) result.push_back({path, value, now});
  }
  for (const auto& [path, value] : fresh) {
    if (!old.contains(path) && !resolved::lies_in_leaf(old, path)) result.push_back({path, resolved::value_at(old, path), value});
  }
  return result;
}

std::vector<ChangedKey> changed_results(const fs::path& run, const std::string& config) {
  const fs::path path = run / "config.yaml";
  if (!fs::exists(path)) return {};
  std::vector<ChangedKey> changes = changed_keys(read_file(path), config, path.string());
  std::erase_if(changes, [](const ChangedKey& key) { return !resolved::changes_results(key); });
  return changes;
}

std::string changes_text(const std::vector<ChangedKey>& changes) {
  constexpr std::size_t most_named = 8;
  std::string text;
  for (std::size_t i = 0; i < std::min(changes.size(), most_named); ++i) {
    const ChangedKey& key = changes[i];
    text += concat(text.empty() ? "" : ", ", key.path, " (here ", key.before.empty() ? "absent" : key.before, ", now ",
                   key.after.empty() ? "absent" : key.after, ")");
  }
  return changes.size() <= most_named ? text : concat(text, " and ", changes.size() - most_named, " more");
}

bool other_dtype(const std::vector<ChangedKey>& changes) {
  return std::any_of(changes.begin(), changes.end(), [](const ChangedKey& key) { return key.path == "dtype"; });
}

void require_unchanged(const fs::path& run, const std::vector<ChangedKey>& changes, Changes how) {
  std::string restore = "restore them to continue it";
  if (other_dtype(changes)) restore += " (--dtype: auto is bfloat16 on a GPU and float32 on the CPU)";
  require(changes.empty() || how == Changes::accept, (run / "config.yaml").string(),
          ": the run that lies here began with other settings or files: ", changes_text(changes), "; ", restore, ", ",
          how == Changes::offer ? "choose another folder, or go on with the new ones by --accept-changes"
                                : "or choose another folder");
}

void keep_resolved_config(const fs::path& run, const std::string& config, bool continues) {
  if (continues) require_unchanged(run, changed_results(run, config), Changes::refuse);
  const fs::path path = run / "config.yaml";
  if (!fs::exists(path) || read_file(path) != config) write_file(path, config);
}

}  // namespace molt
