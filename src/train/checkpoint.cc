#include "train/checkpoint.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/checksum.h"
#include "base/error.h"
#include "formats/safetensors.h"

namespace molt {

namespace checkpoint_files {

constexpr const char* removed = ".removed";

fs::path folder_of(const fs::path& run) {
  return run / "checkpoints";
}

std::string name_of(std::int64_t step) {
  char name[24];
  std::snprintf(name, sizeof name, "%08lld", static_cast<long long>(step));
  return name;
}

bool is_number(const std::string& name) {
  return name.size() >= 8 && std::all_of(name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; });
}

std::int64_t step_of(const fs::path& checkpoint) {
  return std::stoll(checkpoint.filename().string());
}

void remove(const fs::path& path) {
  std::error_code error;
  fs::remove_all(path, error);
  require(!error, path.string(), ": cannot remove: ", error.message());
}

void rename(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::rename(from, to, error);
  require(!error, from.string(), ": cannot rename to ", to.filename().string(), ": ", error.message());
}

std::vector<fs::path> entries(const fs::path& folder) {
  std::vector<fs::path> result;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    result.push_back(entry->path());
  }
  return result;
}

std::map<std::string, std::string> texts(const Json& state, const std::string& key, const std::string& place) {
  std::map<std::string, std::string> result;
  for (const auto& [name, unused] : state[key].items())
    result[name] = get<std::string>(state[key], name, concat(place, ": ", key));
  return result;
}

}  // namespace checkpoint_files

fs::path save_checkpoint(const fs::path& run, const Checkpoint& checkpoint,
                         const std::function<void(const fs::path&)>& write_exports) {
  const fs::path path = checkpoint_files::folder_of(run) / checkpoint_files::name_of(checkpoint.step);
  AtomicFolder folder(path);
  write_exports(folder.path());
  NamedTensors tensors;
  for (const Parameter& parameter : checkpoint.tensors) tensors.emplace_back(parameter.name, parameter.value);
  write_safetensors(folder.path() / "optimizer.safetensors", tensors);
  OrderedJson state = {
      {"step", checkpoint.step},          {"tokens", checkpoint.tokens},     {"loss", checkpoint.loss},
      {"seconds", checkpoint.seconds},    {"device", checkpoint.device},     {"dtype", checkpoint.dtype},
      {"threads", checkpoint.threads},    {"versions", checkpoint.versions}, {"data", *checkpoint.data},
      {"interval", *checkpoint.interval}, {"horizon", *checkpoint.horizon},  {"data_fingerprint", checkpoint.data_fingerprint}};
  if (!checkpoint.model_fingerprints.empty()) state["model_fingerprints"] = checkpoint.model_fingerprints;
  write_json(folder.path() / "state.json", state);
  write_checksums(folder.path());
  folder.commit();
  return path;
}

Checkpoint read_checkpoint(const fs::path& folder) {
  verify_checksums(folder);
  const fs::path path = folder / "state.json";
  const std::string place = path.string();
  const Json state = read_json(path);
  Checkpoint result;
  result.folder = folder;
  result.step = get<std::int64_t>(state, "step", place);
  result.tokens = get<std::int64_t>(state, "tokens", place);
  result.loss = get<double>(state, "loss", place);
  result.seconds = get<double>(state, "seconds", place);
  result.device = get<std::string>(state, "device", place);
  result.dtype = get<std::string>(state, "dtype", place);
  result.threads = static_cast<int>(get<std::int64_t>(state, "threads", place));
  for (const char* key : {"data", "interval", "horizon", "versions"}) {
    require(state.contains(key), place, ": found no \"", key, "\", expected the state of a run");
  }
  result.versions = checkpoint_files::texts(state, "versions", place);
  if (state.contains("model_fingerprints")) {
    result.model_fingerprints = checkpoint_files::texts(state, "model_fingerprints", place);
  }
  result.data = std::make_shared<const Json>(state["data"]);
  result.data_fingerprint = get_or<std::string>(state, "data_fingerprint", "", place);
  result.interval = std::make_shared<const Json>(state["interval"]);
  result.horizon = std::make_shared<const Json>(state["horizon"]);
  const SafetensorsFile file = SafetensorsFile::open(folder / "optimizer.safetensors");
  for (const TensorInfo& info : file.tensors()) result.tensors.push_back({info.name, file.tensor(info.name)});
  return result;
}

std::vector<fs::path> list_checkpoints(const fs::path& run) {
  std::vector<fs::path> result;
  for (const fs::path& entry : checkpoint_files::entries(checkpoint_files::folder_of(run))) {
    if (checkpoint_files::is_number(entry.filename().string())) result.push_back(entry);
  }
  std::sort(result.begin(), result.end(),
            [](const fs::path& a, const fs::path& b) { return checkpoint_files::step_of(a) > checkpoint_files::step_of(b); });
  return result;
}

void prune_checkpoints(const fs::path& run, const Retention& retention) {
  // Renamed before it is removed, so that a kill in between leaves nothing that looks like a checkpoint.
  const std::vector<fs::path> whole = list_checkpoints(run);
  for (std::size_t i = static_cast<std::size_t>(retention.newest); i < whole.size(); ++i) {
    if (retention.every > 0 && checkpoint_files::step_of(whole[i]) % retention.every == 0) continue;
    checkpoint_files::rename(whole[i], whole[i].string() + checkpoint_files::removed);
  }
  for (const fs::path& entry : checkpoint_files::entries(checkpoint_files::folder_of(run))) {
    if (entry.extension() == checkpoint_files::removed) checkpoint_files::remove(entry);
  }
}

fs::path set_aside(const fs::path& checkpoint) {
  const fs::path aside = checkpoint.string() + ".damaged";
  checkpoint_files::remove(aside);
  checkpoint_files::rename(checkpoint, aside);
  return aside;
}

}  // namespace molt
