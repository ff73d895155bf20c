#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"
#include "formats/config_json.h"
#include "formats/family.h"
#include "formats/hugging_face.h"
#include "formats/peft.h"
#include "formats/safetensors.h"
#include "formats/stored_model.h"

namespace molt {
namespace load_model_detail {

// The number at the end of a checkpoint's name ("step-000300"), or -1.
std::int64_t checkpoint_number(const std::string& name) {
  const std::size_t start = name.find_last_not_of("0123456789") + 1;
  const std::string digits = name.substr(start);
  return digits.empty() || digits.size() > 18 ? -1 : std::stoll(digits);
}

// The newest checkpoint of a run that holds an export, or an empty path.
fs::path newest_export(const fs::path& checkpoints) {
  fs::path newest;
  std::int64_t highest = -1;
  if (!fs::is_directory(checkpoints)) return newest;
  for (const auto& entry : fs::directory_iterator(checkpoints)) {
    const std::int64_t number = checkpoint_number(entry.path().filename().string());
    if (number > highest && holds_model(entry.path() / "export")) {
      highest = number;
      newest = entry.path() / "export";
    }
  }
  return newest;
}

}  // namespace load_model_detail

bool holds_model(const fs::path& folder) {
  return fs::exists(folder / "config.json") || is_adapter_folder(folder);
}

fs::path resolve_model_folder(const fs::path& model) {
  if (!fs::exists(model)) {
    const std::string name = model.string();
    const bool may_be_on_hub = model.is_relative() && !name.starts_with('.') && std::count(name.begin(), name.end(), '/') == 1;
    fail(name, ": no such folder",
         may_be_on_hub ? concat("; if it is a name on the Hugging Face Hub, hf download ", name, " --local-dir ",
                                model.filename().string(), " makes it one")
                       : "");
  }
  for (const fs::path& folder : {model, model / "export", load_model_detail::newest_export(model / "checkpoints")}) {
    if (!folder.empty() && holds_model(folder)) return folder;
  }
  require(!fs::exists(model / "recipe.json"), model.string(),
          ": found the results of a recipe, expected one of its stages, a folder in this one");
  fail(model.string(),
       ": found no config.json and no adapter_config.json, expected a Hugging Face folder, a checkpoint or a run");
}

ModelConfig read_model_config(const fs::path& folder) {
  const fs::path path = base_folder(folder) / "config.json";
  return parse_model_config(read_json(path), path.string());
}

at::ScalarType stored_dtype(const fs::path& folder) {
  const char* embedding = model_tensor_names().front().stored;
  const SafetensorsFolder files = SafetensorsFolder::open(base_folder(folder));
  const SafetensorsFile* holder = files.holder(embedding);
  require(holder != nullptr, files.listing().string(), ": found no tensor ", embedding);
  return holder->find(embedding)->dtype;
}

std::unique_ptr<Model> load_model(const fs::path& folder, const LoadOptions& options) {
  const StoredModel stored = StoredModel::open(folder);
  const at::ScalarType dtype = options.dtype.value_or(options.device.is_cpu() ? at::kFloat : stored.dtype());
  std::unique_ptr<Model> model = stored.load(options.device, dtype);
  model->to(options.device, dtype);  // moves nothing any more, but readies what is not a parameter
  return model;
}

}  // namespace molt
