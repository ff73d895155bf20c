#include "formats/peft.h"

#include <ATen/Functions.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "base/counted.h"
#include "base/error.h"
#include "base/json.h"
#include "formats/carried_files.h"
#include "formats/hugging_face.h"
#include "formats/model_tensors.h"
#include "formats/safetensors.h"

namespace molt {

namespace peft_files {

constexpr const char* config_name = "adapter_config.json";
constexpr const char* weights_name = "adapter_model.safetensors";
constexpr const char* prefix = "base_model.model.";
constexpr const char* suffix_A = ".lora_A.weight";
constexpr const char* suffix_B = ".lora_B.weight";

// Settings of peft that change what an adapter computes and that molt does not follow: key and what it must be, if it is there.
constexpr std::pair<const char*, const char*> fixed[] = {
    {"peft_type", R"("LORA")"},    {"use_dora", "false"},         {"lora_bias", "false"},
    {"fan_in_fan_out", "false"},   {"bias", R"("none")"},         {"modules_to_save", "null"},
    {"layer_replication", "null"}, {"target_parameters", "null"}, {"trainable_token_indices", "null"},
};

Json read_config(const fs::path& folder) {
  const fs::path path = folder / config_name;
  const Json config = read_json(path);
  require(config.is_object(), path.string(), ": expected an object");
  for (const auto& [key, expected] : fixed) {
    const auto found = config.find(key);
    if (found == config.end() || found->is_null() || (found->is_array() && found->empty())) continue;
    require(*found == Json::parse(expected), path.string(), ": ", key, ": found ", to_line(*found), ", expected ", expected);
  }
  return config;
}

fs::path base_of(const Json& config, const fs::path& folder) {
  const std::string place = (folder / config_name).string();
  const auto named = get<std::string>(config, "base_model_name_or_path", place);
  for (const fs::path& path : {fs::path(named), folder / named}) {
    if (!fs::is_directory(path)) continue;
    const fs::path base = resolve_model_folder(path);
    require(!is_adapter_folder(base), place, ": base_model_name_or_path: found ", base.string(),
            ", which holds adapters itself; expected a whole model");
    return base;
  }
  fail(place, ": base_model_name_or_path: found \"", named, "\", which is no folder here; expected that of the adapter's model");
}

// The value of a pattern's map for a module: the keys are names of modules, whole or their ends.
std::optional<double> of_module(const Json& config, const char* key, const std::string& module, const std::string& place) {
  const Json patterns = config.value(key, Json());
  if (!patterns.is_object()) return std::nullopt;
  for (const auto& [name, value] : patterns.items()) {
    require(name.find_first_of("*+?[](){}^$|\\") == std::string::npos, place, ": ", key, ": found the expression \"", name,
            "\", expected names of modules");
    if (module == name || module.ends_with("." + name)) return get<double>(patterns, name, concat(place, ": ", key));
  }
  return std::nullopt;
}

double scale_of(const Json& config, const std::string& module, std::int64_t rank, const std::string& place) {
  const double alpha = of_module(config, "alpha_pattern", module, place).value_or(get<double>(config, "lora_alpha", place));
  const auto wide = static_cast<double>(rank);
  return alpha / (get_or<bool>(config, "use_rslora", false, place) ? std::sqrt(wide) : wide);
}

// "model.layers.0.self_attn.q_proj" of a tensor's name with this end; empty for another one.
std::string module_of(const std::string& tensor, const std::string& suffix) {
  const std::string start = prefix;
  if (!tensor.starts_with(start) || !tensor.ends_with(suffix)) return "";
  return tensor.substr(start.size(), tensor.size() - start.size() - suffix.size());
}

}  // namespace peft_files

bool is_adapter_folder(const fs::path& folder) {
  return fs::exists(folder / peft_files::config_name) && !fs::exists(folder / "config.json");
}

fs::path base_folder(const fs::path& folder) {
  return is_adapter_folder(folder) ? peft_files::base_of(peft_files::read_config(folder), folder) : folder;
}

fs::path tokenizer_folder(const fs::path& folder) {
  return fs::exists(folder / "tokenizer.json") ? folder : base_folder(folder);
}

PeftAdapter PeftAdapter::open(const fs::path& folder) {
  using namespace peft_files;
  const Json config = read_config(folder);
  PeftAdapter adapter{folder, base_of(config, folder), {}};
  const SafetensorsFile file = SafetensorsFile::open(folder / weights_name);
  for (const TensorInfo& tensor : file.tensors()) {
    const std::string place = concat(file.path().string(), ": ", tensor.name);
    const std::string A = module_of(tensor.name, suffix_A), B = module_of(tensor.name, suffix_B);
    require(!A.empty() || !B.empty(), place, ": expected ", prefix, "MODULE", suffix_A, " or ", suffix_B, " alone");
    require(tensor.shape.size() == 2 && at::isFloatingType(tensor.dtype), place, ": found ", safetensors_dtype(tensor.dtype), " ",
            shape_text(tensor.shape), ", expected a matrix of floating numbers");
    (A.empty() ? adapter.updates[B].B : adapter.updates[A].A) = file.tensor(tensor.name);
  }
  for (auto& [module, update] : adapter.updates) {
    const std::string place = concat(file.path().string(), ": ", module);
    require(update.A.defined() && update.B.defined(), place, ": found one of lora_A and lora_B, expected both");
    require(update.A.size(0) == update.B.size(1), place, ": found lora_A ", shape_text(update.A.sizes()), " and lora_B ",
            shape_text(update.B.sizes()), ", expected one rank");
    update.scale = scale_of(config, module, update.A.size(0), (folder / config_name).string());
  }
  return adapter;
}

std::vector<Projection> projections(Model& model) {
  std::map<std::string, StoredParameter> stored;
  for (StoredParameter& parameter : stored_parameters(model)) stored.emplace(parameter.name, std::move(parameter));
  std::vector<Projection> result;
  model.visit(ParameterVisitor::of_linears([&](const std::string& name, Linear& linear) {
    const auto found = stored.find(name + ".weight");
    if (!name.starts_with("layers.") || found == stored.end()) return;
    const std::vector<StoredTensor>& parts = found->second.on_disk;
    for (std::size_t i = 0; i < parts.size(); ++i) {
      MOLT_CHECK(parts[i].scale == 1.0, name, ".weight is scaled on disk");
      const std::string section = parts.size() == 1 ? "" : linear.sections().at(i).name;
      const std::string module = parts[i].name.substr(0, parts[i].name.size() - std::string(".weight").size());
      result.push_back({module, &linear, section, parts[i].rows});
    }
  }));
  return result;
}

void attach_adapters(Model& model, const PeftAdapter& adapter) {
  std::size_t attached = 0;
  for (const Projection& projection : projections(model)) {
    const auto found = adapter.updates.find(projection.module);
    if (found == adapter.updates.end()) continue;
    const auto& [A, B, scale] = found->second;
    Linear& linear = *projection.linear;
    require(A.size(1) == linear.in() && B.size(0) == projection.rows, adapter.folder.string(), ": ", projection.module,
            ": found lora_A ", shape_text(A.sizes()), " and lora_B ", shape_text(B.sizes()), ", expected ",
            counted(linear.in(), "column"), " and ", counted(projection.rows, "row"));
    const at::TensorOptions like = linear.weight.options().requires_grad(false);
    linear.adapters.push_back({projection.section, A.to(like, false, /*copy=*/true), B.to(like, false, /*copy=*/true), scale});
    ++attached;
  }
  if (attached == adapter.updates.size()) return;
  std::set<std::string> known;
  for (const Projection& projection : projections(model)) known.insert(projection.module);
  for (const auto& [module, update] : adapter.updates) {
    require(known.contains(module), adapter.folder.string(), ": found an adapter of ", module,
            ", which is no projection of this model's layers");
  }
}

namespace peft_files {

struct Exported {
  Projection projection;
  const Linear::Adapter* adapter;
  std::int64_t rank() const { return adapter->A.size(0); }
  double alpha() const { return adapter->scale * static_cast<double>(rank()); }
};

Json number(double value) {
  return value == std::floor(value) ? Json(static_cast<std::int64_t>(value)) : Json(value);
}

std::string leaf(const std::string& module) {
  return module.substr(module.rfind('.') + 1);
}

// "q_proj" where every projection of that name is adapted, whole names otherwise.
std::set<std::string> targets(const std::vector<Exported>& adapters, const std::vector<Projection>& all) {
  std::map<std::string, std::size_t> there, adapted;
  for (const Projection& projection : all) ++there[leaf(projection.module)];
  for (const Exported& each : adapters) ++adapted[leaf(each.projection.module)];
  std::set<std::string> result;
  for (const Exported& each : adapters) {
    const std::string& module = each.projection.module;
    result.insert(there[leaf(module)] == adapted[leaf(module)] ? leaf(module) : module);
  }
  return result;
}

OrderedJson make_config(const std::vector<Exported>& adapters, const std::vector<Projection>& all, const fs::path& base) {
  const Exported& first = adapters.front();
  OrderedJson ranks = OrderedJson::object(), alphas = OrderedJson::object();
  for (const Exported& each : adapters) {
    if (each.rank() != first.rank()) ranks[each.projection.module] = each.rank();
    if (each.alpha() != first.alpha()) alphas[each.projection.module] = number(each.alpha());
  }
  return {{"peft_type", "LORA"},
          {"task_type", "CAUSAL_LM"},
          {"base_model_name_or_path", fs::absolute(base).lexically_normal().string()},
          {"r", first.rank()},
          {"lora_alpha", number(first.alpha())},
          {"rank_pattern", ranks},
          {"alpha_pattern", alphas},
          {"target_modules", targets(adapters, all)},
          {"lora_dropout", 0.0},
          {"bias", "none"},
          {"fan_in_fan_out", false},
          {"use_rslora", false},
          {"use_dora", false},
          {"modules_to_save", nullptr},
          {"inference_mode", true}};
}

}  // namespace peft_files

void export_adapters(Model& model, const fs::path& folder, const fs::path& base) {
  using namespace peft_files;
  const std::vector<Projection> all = projections(model);
  std::vector<Exported> adapters;
  NamedTensors tensors;
  for (const Projection& projection : all) {
    for (const Linear::Adapter& adapter : projection.linear->adapters) {
      if (adapter.section != projection.section) continue;
      adapters.push_back({projection, &adapter});
      tensors.emplace_back(concat(prefix, projection.module, suffix_A), adapter.A.detach());
      tensors.emplace_back(concat(prefix, projection.module, suffix_B), adapter.B.detach());
    }
  }
  MOLT_CHECK(!adapters.empty(), "a model without adapters");
  AtomicFolder target(folder);
  write_json(target.path() / config_name, make_config(adapters, all, base));
  write_safetensors(target.path() / weights_name, tensors, {{"format", "pt"}});
  carry_over(base, target.path());
  target.commit();
}

}  // namespace molt
