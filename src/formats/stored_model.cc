#include "formats/stored_model.h"

#include <ATen/Functions.h>

#include <unordered_set>

#include "base/error.h"
#include "formats/family.h"

namespace molt {
namespace stored_model {

std::unique_ptr<Model> empty_model(const fs::path& folder) {
  const ModelConfig config = read_model_config(folder);
  try {
    return std::make_unique<Model>(config);
  } catch (const UserError& error) {
    fail((folder / "config.json").string(), ": ", error.what());
  }
}

}  // namespace stored_model

StoredModel StoredModel::open(const fs::path& folder) {
  const fs::path base = base_folder(folder);
  StoredModel model(base, stored_model::empty_model(base));
  if (is_adapter_folder(folder)) model.adapt(PeftAdapter::open(folder));
  return model;
}

StoredModel::StoredModel(const fs::path& folder, std::unique_ptr<Model> model)
    : folder_(SafetensorsFolder::open(folder)), model_(std::move(model)) {
  for (StoredParameter& parameter : stored_parameters(*model_)) {
    for (const StoredTensor& stored : parameter.on_disk) check(stored);
    parameters_.emplace(parameter.name, std::move(parameter));
  }
  check_extras();
}

void StoredModel::adapt(PeftAdapter adapter) {
  Model model(config());  // without weights: whether the updates fit
  attach_adapters(model, adapter);
  adapter_ = std::move(adapter);
}

const PeftAdapter::Update* StoredModel::update_of(const StoredTensor& stored) const {
  const std::size_t dot = stored.name.rfind(".weight");
  if (!adapter_ || dot == std::string::npos) return nullptr;
  const auto found = adapter_->updates.find(stored.name.substr(0, dot));
  return found == adapter_->updates.end() ? nullptr : &found->second;
}

at::ScalarType StoredModel::dtype() const {
  const char* embedding = model_tensor_names().front().stored;
  return folder_.holder(embedding)->find(embedding)->dtype;
}

std::int64_t StoredModel::bytes() const {
  std::uint64_t total = 0;
  for (const SafetensorsFile& file : folder_.files()) {
    for (const TensorInfo& tensor : file.tensors()) total += tensor.bytes();
  }
  return static_cast<std::int64_t>(total);
}

void StoredModel::check(const StoredTensor& stored) const {
  const SafetensorsFile* holder = folder_.holder(stored.name);
  require(holder != nullptr, folder_.listing().string(), ": found no tensor ", stored.name);
  const TensorInfo& found = *holder->find(stored.name);
  const std::string place = concat(holder->path().string(), ": ", stored.name);
  require(found.dtype == at::kFloat || found.dtype == at::kBFloat16 || found.dtype == at::kHalf, place, ": found dtype ",
          safetensors_dtype(found.dtype), ", expected F32, BF16 or F16");
  require(found.shape == stored.shape, place, ": found shape ", shape_text(found.shape), ", expected ", shape_text(stored.shape),
          " from config.json");
}

void StoredModel::check_extras() const {
  std::unordered_set<std::string> used;
  for (const auto& [name, parameter] : parameters_) {
    for (const StoredTensor& stored : parameter.on_disk) used.insert(stored.name);
  }
  for (const SafetensorsFile& file : folder_.files()) {
    for (const TensorInfo& tensor : file.tensors()) {
      require(used.contains(tensor.name) || is_ignorable_tensor(tensor.name, config()), file.path().string(), ": found tensor ",
              tensor.name, ", which a model with this config.json does not have");
    }
  }
  if (config().tied_embeddings) check_tied_head();
}

// Versions 4 of transformers take the embedding for a tied head whatever the file holds, versions 5 the head where it differs.
void StoredModel::check_tied_head() const {
  const char *embedding = model_tensor_names().front().stored, *head = model_tensor_names().back().stored;
  const SafetensorsFile* holder = folder_.holder(head);
  if (!holder) return;
  const at::Tensor own = holder->tensor(head), shared = folder_.holder(embedding)->tensor(embedding);
  require(own.scalar_type() == shared.scalar_type() && at::equal(own, shared), holder->path().string(), ": ", head,
          ": found other values than in ", embedding, ", expected the same with tie_word_embeddings in config.json; false there ",
          "makes it a head of its own");
}

at::Tensor StoredModel::parameter(const std::string& name, at::Device device, at::ScalarType wanted) const {
  const auto found = parameters_.find(name);
  MOLT_CHECK(found != parameters_.end(), "no parameter ", name);
  const StoredParameter& parameter = found->second;
  const at::ScalarType dtype = model_->keeps_fp32(name) && wanted != at::kDouble ? at::kFloat : wanted;
  if (device.is_cpu()) {
    if (at::Tensor mapped = in_place(parameter, dtype); mapped.defined()) return mapped;
  }
  at::Tensor value = at::empty(parameter.value->sizes(), at::TensorOptions(device).dtype(dtype));
  for (const StoredTensor& stored : parameter.on_disk) {
    at::Tensor rows = value.narrow(0, stored.first_row, stored.rows), source = folder_.holder(stored.name)->tensor(stored.name);
    if (const PeftAdapter::Update* update = update_of(stored)) {
      const at::TensorOptions wide = at::TensorOptions(device).dtype(wanted == at::kDouble ? at::kDouble : at::kFloat);
      source = at::addmm(source.to(wide), update->B.to(wide), update->A.to(wide), 1, update->scale);
    }
    rows.copy_(source);
    if (stored.scale != 1.0) rows.mul_(stored.scale);
  }
  return value;
}

// The parameter where it lies in the mapped file, if it can be used there; else undefined.
at::Tensor StoredModel::in_place(const StoredParameter& parameter, at::ScalarType dtype) const {
  const SafetensorsFile* file = folder_.holder(parameter.on_disk.front().name);
  std::vector<std::string> names;
  for (const StoredTensor& stored : parameter.on_disk) {
    if (stored.scale != 1.0 || update_of(stored) || folder_.holder(stored.name) != file ||
        file->find(stored.name)->dtype != dtype)
      return {};
    names.push_back(stored.name);
  }
  const at::Tensor value = file->joined(names);
  // fp32 products change in the last bit where weights are not aligned to 16 bytes; a copy is.
  constexpr std::uintptr_t alignment = 16;
  const bool aligned = value.defined() && reinterpret_cast<std::uintptr_t>(value.const_data_ptr()) % alignment == 0;
  return aligned || dtype != at::kFloat ? value : at::Tensor();
}

std::unique_ptr<Model> StoredModel::load(at::Device device, at::ScalarType dtype) const {
  auto model = std::make_unique<Model>(config());
  model->visit([&](const std::string& name, at::Tensor& value) { value = parameter(name, device, dtype); });
  return model;
}

}  // namespace molt
