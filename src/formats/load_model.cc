#include <ATen/Functions.h>

#include <nlohmann/json.hpp>
#include <unordered_set>

#include "base/error.h"
#include "base/json.h"
#include "formats/config_json.h"
#include "formats/hugging_face.h"
#include "formats/model_tensors.h"
#include "formats/safetensors.h"

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
    if (number > highest && fs::exists(entry.path() / "export" / "config.json")) {
      highest = number;
      newest = entry.path() / "export";
    }
  }
  return newest;
}

class Loader {
 public:
  Loader(const fs::path& folder, const LoadOptions& options) : folder_(SafetensorsFolder::open(folder)), options_(options) {}

  at::ScalarType stored_dtype() const { return info(model_tensor_names().front().stored).dtype; }

  std::unique_ptr<Model> load(const ModelConfig& config, const std::string& place) {
    std::unique_ptr<Model> model;
    try {
      model = std::make_unique<Model>(config);
    } catch (const UserError& error) {
      fail(place, ": ", error.what());
    }
    const at::ScalarType dtype = options_.dtype.value_or(options_.device.is_cpu() ? at::kFloat : stored_dtype());
    for (const StoredParameter& parameter : stored_parameters(*model)) {
      for (const StoredTensor& stored : parameter.on_disk) check(stored);
      const at::ScalarType target = model->keeps_fp32(parameter.name) && dtype != at::kDouble ? at::kFloat : dtype;
      *parameter.value = fill(parameter, target);
    }
    check_extras(*model);
    return model;
  }

 private:
  const TensorInfo& info(const std::string& name) const {
    const SafetensorsFile* holder = folder_.holder(name);
    require(holder != nullptr, folder_.listing().string(), ": found no tensor ", name);
    return *holder->find(name);
  }

  void check(const StoredTensor& stored) {
    const TensorInfo& found = info(stored.name);
    const std::string place = concat(folder_.holder(stored.name)->path().string(), ": ", stored.name);
    require(found.dtype == at::kFloat || found.dtype == at::kBFloat16 || found.dtype == at::kHalf, place, ": found dtype ",
            safetensors_dtype(found.dtype), ", expected F32, BF16 or F16");
    require(found.shape == stored.shape, place, ": found shape ", shape_text(found.shape), ", expected ",
            shape_text(stored.shape), " from config.json");
    used_.insert(stored.name);
  }

  at::Tensor fill(const StoredParameter& parameter, at::ScalarType dtype) const {
    if (at::Tensor mapped = in_place(parameter, dtype); mapped.defined()) return mapped;
    at::Tensor value = at::empty(parameter.value->sizes(), at::TensorOptions(options_.device).dtype(dtype));
    for (const StoredTensor& stored : parameter.on_disk) {
      at::Tensor rows = value.narrow(0, stored.first_row, stored.rows);
      rows.copy_(folder_.holder(stored.name)->tensor(stored.name));
      if (stored.scale != 1.0) rows.mul_(stored.scale);
    }
    return value;
  }

  // The parameter where it lies in the mapped file, if it can be used there; else undefined.
  at::Tensor in_place(const StoredParameter& parameter, at::ScalarType dtype) const {
    const SafetensorsFile* file = folder_.holder(parameter.on_disk.front().name);
    std::vector<std::string> names;
    for (const StoredTensor& stored : parameter.on_disk) {
      if (stored.scale != 1.0 || folder_.holder(stored.name) != file || file->find(stored.name)->dtype != dtype) return {};
      names.push_back(stored.name);
    }
    if (!options_.device.is_cpu()) return {};
    const at::Tensor value = file->joined(names);
    // fp32 products change in the last bit where weights are not aligned to 16 bytes; a copy is.
    constexpr std::uintptr_t alignment = 16;
    const bool aligned = value.defined() && reinterpret_cast<std::uintptr_t>(value.const_data_ptr()) % alignment == 0;
    return aligned || dtype != at::kFloat ? value : at::Tensor();
  }

  void check_extras(const Model& model) const {
    for (const SafetensorsFile& file : folder_.files()) {
      for (const TensorInfo& tensor : file.tensors()) {
        require(used_.count(tensor.name) || is_ignorable_tensor(tensor.name, model.config()), file.path().string(),
                ": found tensor ", tensor.name, ", which a model with this config.json does not have");
      }
    }
  }

  SafetensorsFolder folder_;
  LoadOptions options_;
  std::unordered_set<std::string> used_;
};

}  // namespace load_model_detail

fs::path resolve_model_folder(const fs::path& model) {
  require(fs::exists(model), model.string(), ": no such folder");
  for (const fs::path& folder : {model, model / "export", load_model_detail::newest_export(model / "checkpoints")}) {
    if (!folder.empty() && fs::exists(folder / "config.json")) return folder;
  }
  fail(model.string(), ": found no config.json, expected a Hugging Face folder, a checkpoint or a run with one");
}

ModelConfig read_model_config(const fs::path& folder) {
  const fs::path path = folder / "config.json";
  return parse_model_config(read_json(path), path.string());
}

at::ScalarType stored_dtype(const fs::path& folder) {
  return load_model_detail::Loader(folder, {}).stored_dtype();
}

std::unique_ptr<Model> load_model(const fs::path& folder, const LoadOptions& options) {
  const ModelConfig config = read_model_config(folder);
  return load_model_detail::Loader(folder, options).load(config, (folder / "config.json").string());
}

}  // namespace molt
