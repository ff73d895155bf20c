#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"
#include "base/progress.h"
#include "formats/carried_files.h"
#include "formats/config_json.h"
#include "formats/hugging_face.h"
#include "formats/model_tensors.h"
#include "formats/modelling_files.h"
#include "formats/peft.h"
#include "formats/safetensors.h"

namespace molt {
namespace export_model_detail {

class Exporter {
 public:
  Exporter(Model& model, const ExportOptions& options)
      : model_(model), options_(options), parameters_(stored_parameters(model)), config_(model.config()) {
    model.visit(ParameterVisitor::of_linears([](const std::string& name, Linear& linear) {
      MOLT_CHECK(linear.adapters.empty(), name, " has adapters, which a folder of whole weights has no place for");
    }));
    // A block may have been switched to another of its mixers since the configuration was made.
    for (std::size_t i = 0; i < model.blocks.size(); ++i) config_.blocks[i] = model.blocks[i].config();
    if (options.like.empty()) return;
    require(fs::is_directory(options.like), options.like.string(), ": no such folder");
    base_ = base_folder(options.like);
    if (const fs::path path = base_ / "config.json"; fs::exists(path)) {
      like_ = parse_ordered_json(read_file(path), path.string());
      family_of(Json(like_), path.string());
    }
  }

  void write(const fs::path& folder) {
    for (const StoredParameter& parameter : parameters_) dtypes_.push_back(dtype_of(parameter));
    check_disk(folder);
    const Family& family = family_for(config_, Json(like_));
    write_json(folder / "config.json", config_json(family));
    if (family.layout) {
      for (const auto& [name, content] : hybrid_modelling_files()) write_file(folder / name, content);
    }
    write_weights(folder);
    if (!options_.like.empty()) carry_over(base_, folder);
    if (base_ != options_.like) carry_over(options_.like, folder);
    if (!options_.model_card.empty()) write_file(folder / "README.md", options_.model_card);
  }

 private:
  OrderedJson config_json(const Family& family) const {
    OrderedJson config = make_config_json(config_, family, like_, dtype_word(dtypes_.front()));
    add_token_ids(config);
    if (family.layout) {  // transformers finds the modelling files, which are ours whatever `like` had, through these
      config["auto_map"] = {{"AutoConfig", "configuration_apriel_hybrid_ssm.AprielHybridSSMConfig"},
                            {"AutoModel", "modeling_apriel_hybrid_ssm.AprielHybridSSMModel"},
                            {"AutoModelForCausalLM", "modeling_apriel_hybrid_ssm.AprielHybridSSMForCausalLM"}};
    }
    return config;
  }

  // generate() stops at eos_token_id of config.json: where no config.json says it, the tokenizer's files do.
  void add_token_ids(OrderedJson& config) const {
    const fs::path settings = base_ / "tokenizer_config.json", tokenizer = base_ / "tokenizer.json";
    if (base_.empty() || !like_.is_null() || !fs::exists(settings) || !fs::exists(tokenizer)) return;
    const Json words = read_json(settings), tokens = read_json(tokenizer);
    for (const char* kind : {"bos_token", "eos_token", "pad_token"}) {
      Json word = words.value(kind, Json());
      if (word.is_object()) word = word.value("content", Json());
      for (const Json& token : tokens.value("added_tokens", Json::array())) {
        if (word.is_string() && token.value("content", Json()) == word) config[concat(kind, "_id")] = token.value("id", -1);
      }
    }
  }

  at::ScalarType dtype_of(const StoredParameter& parameter) {
    const at::Tensor& value = *parameter.value;
    MOLT_CHECK(!value.is_meta() || options_.source, parameter.name, " was neither loaded nor initialised");
    if (!model_.keeps_fp32(parameter.name)) return options_.dtype.value_or(value.scalar_type());
    // Published checkpoints may hold fewer bits here too. They are given back as they came, unless that would lose something.
    const at::ScalarType stored = options_.dtype ? value.scalar_type() : stored_like(parameter.on_disk.front().name);
    if (value.is_meta()) return stored;
    const bool exact = stored == value.scalar_type() || at::equal(value.to(stored).to(value.scalar_type()), value);
    return exact ? stored : value.scalar_type();
  }

  // The dtype that `like` stores a tensor in; fp32 where it has none.
  at::ScalarType stored_like(const std::string& name) {
    if (!like_weights_ && (fs::exists(base_ / "model.safetensors") || fs::exists(base_ / "model.safetensors.index.json"))) {
      like_weights_ = SafetensorsFolder::open(base_);
    }
    const SafetensorsFile* holder = like_weights_ ? like_weights_->holder(name) : nullptr;
    return holder && at::isFloatingType(holder->find(name)->dtype) ? holder->find(name)->dtype : at::kFloat;
  }

  std::int64_t bytes(std::size_t i) const {
    return parameters_[i].value->numel() * static_cast<std::int64_t>(c10::elementSize(dtypes_[i]));
  }

  void check_disk(const fs::path& folder) const {
    std::int64_t needed = 0;
    for (std::size_t i = 0; i < parameters_.size(); ++i) needed += bytes(i);
    const auto free = static_cast<std::int64_t>(fs::space(folder).available);
    if (options_.before_writing) options_.before_writing(needed, free);
    require(needed <= free, folder.parent_path().string(), ": found ", human_bytes(static_cast<double>(free)),
            " of free disk, expected ", human_bytes(static_cast<double>(needed)), " for the weights");
  }

  // Parameters by shard. The parts of one parameter stay together, so that they lie one behind the other and can be mapped as
  // one.
  std::vector<std::vector<std::size_t>> shards() const {
    std::vector<std::vector<std::size_t>> shards(1);
    std::int64_t filled = 0;
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      if (filled > 0 && filled + bytes(i) > options_.max_shard_bytes) {
        shards.emplace_back();
        filled = 0;
      }
      shards.back().push_back(i);
      filled += bytes(i);
    }
    return shards;
  }

  void write_weights(const fs::path& folder) const {
    const auto all = shards();
    if (all.size() == 1) {
      write_shard(folder / "model.safetensors", all.front());
      return;
    }
    Json weight_map = Json::object();
    std::uint64_t bytes = 0;
    for (std::size_t i = 0; i < all.size(); ++i) {
      char name[64];
      std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", i + 1, all.size());
      for (const TensorInfo& tensor : write_shard(folder / name, all[i])) {
        weight_map[tensor.name] = name;
        bytes += tensor.bytes();
      }
    }
    write_json(folder / "model.safetensors.index.json", Json{{"metadata", {{"total_size", bytes}}}, {"weight_map", weight_map}});
  }

  std::vector<TensorInfo> write_shard(const fs::path& path, const std::vector<std::size_t>& indices) const {
    std::vector<TensorInfo> planned;
    std::map<std::string, std::pair<std::size_t, const StoredTensor*>> by_name;
    for (std::size_t i : indices) {
      for (const StoredTensor& stored : parameters_[i].on_disk) {
        planned.push_back({stored.name, dtypes_[i], stored.shape});
        by_name[stored.name] = {i, &stored};
      }
    }
    std::map<std::string, std::string> metadata = options_.metadata;
    metadata["format"] = "pt";
    SafetensorsWriter writer(path, std::move(planned), metadata);
    std::size_t held = parameters_.size();  // which parameter `value` is
    at::Tensor value;
    for (const TensorInfo& tensor : writer.order()) {
      const auto& [i, stored] = by_name.at(tensor.name);
      if (i != held) value = value_of(parameters_[i]);
      held = i;
      writer.write(converted(value.narrow(0, stored->first_row, stored->rows), *stored, tensor.dtype));
    }
    writer.commit();
    return writer.order();
  }

  at::Tensor value_of(const StoredParameter& parameter) const {
    return parameter.value->is_meta() ? options_.source(parameter.name) : parameter.value->detach();
  }

  static at::Tensor converted(at::Tensor value, const StoredTensor& stored, at::ScalarType dtype) {
    if (stored.scale != 1.0) value = value / stored.scale;
    at::Tensor result = value.to(dtype);
    if (dtype == at::kHalf && value.scalar_type() != dtype) {
      require(at::isfinite(result).eq(at::isfinite(value)).all().item<bool>(), stored.name,
              ": holds values beyond 65504, which float16 cannot hold; expected bfloat16 or float32 for this export");
    }
    return result;
  }

  Model& model_;
  const ExportOptions& options_;
  std::vector<StoredParameter> parameters_;
  std::vector<at::ScalarType> dtypes_;  // of each parameter on disk
  ModelConfig config_;
  fs::path base_;  // options_.like, or the base of the adapters in it
  OrderedJson like_;
  std::optional<SafetensorsFolder> like_weights_;
};

}  // namespace export_model_detail

std::string dtype_word(at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat:
      return "float32";
    case at::kBFloat16:
      return "bfloat16";
    case at::kHalf:
      return "float16";
    default:
      fail("dtype ", c10::toString(dtype), ": expected float32, bfloat16 or float16 for an export");
  }
}

std::int64_t shard_bytes(double gigabytes, const std::string& place) {
  constexpr double largest = 1e9;
  require(gigabytes > 0 && gigabytes <= largest, place, ": found ", gigabytes, ", expected a positive number of GB");
  return std::max<std::int64_t>(1, static_cast<std::int64_t>(gigabytes * 1e9));
}

void export_model(Model& model, const fs::path& folder, const ExportOptions& options) {
  export_model_detail::Exporter exporter(model, options);
  AtomicFolder target(folder);
  exporter.write(target.path());
  target.commit();
}

}  // namespace molt
