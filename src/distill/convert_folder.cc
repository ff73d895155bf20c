#include "distill/convert_folder.h"

#include <c10/core/GradMode.h>

#include <algorithm>
#include <map>
#include <optional>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/progress.h"
#include "distill/model_card.h"
#include "formats/stored_model.h"

namespace molt {
namespace folder_conversion {

// The new mixers, one in memory at a time.
class NewMixers {
 public:
  NewMixers(const FolderConversion& conversion, const StoredModel& teacher, const ModelConfig& student, at::ScalarType dtype)
      : conversion_(conversion), teacher_(teacher), student_(student), dtype_(dtype) {}

  // The parameter of this name if it is a new mixer's; else undefined.
  at::Tensor find(const std::string& name) {
    for (const std::int64_t layer : conversion_.layers) {
      if (!name.starts_with(prefix(layer))) continue;
      make(layer);
      return parameters_.at(name);
    }
    return {};
  }

  void make(std::int64_t layer) {
    if (layer == layer_) return;
    c10::AutoGradMode no_recording(false);
    parameters_.clear();
    const BlockConfig& block = teacher_.config().blocks[static_cast<std::size_t>(layer)];
    const auto attention = mixer_kind(block.mixer().type(), conversion_.place).make(block.mixer(), teacher_.config());
    attention->visit(concat("layers.", layer, ".mixers.", block.active),
                     [&](const std::string& name, at::Tensor& value) { value = teacher_.parameter(name, at::kCPU, dtype_); });
    const auto mixer = convert_mixer(conversion_.target, student_, *attention, layer, conversion_.seed, conversion_.place);
    mixer->visit(concat("layers.", layer, ".mixers.", conversion_.target.type),
                 [&](const std::string& name, at::Tensor& value) { parameters_[name] = value; });
    layer_ = layer;
  }

 private:
  std::string prefix(std::int64_t layer) const { return concat("layers.", layer, ".mixers.", conversion_.target.type, "."); }

  const FolderConversion& conversion_;
  const StoredModel& teacher_;
  const ModelConfig& student_;
  at::ScalarType dtype_;
  std::int64_t layer_ = -1;
  std::map<std::string, at::Tensor> parameters_;  // of layer_'s new mixer
};

// Whether a parameter belongs to a layer's attention that is restored.
bool is_restored(const std::string& name, const std::vector<std::int64_t>& layers) {
  return std::any_of(layers.begin(), layers.end(),
                     [&](std::int64_t layer) { return name.starts_with(concat("layers.", layer, ".mixers.")); });
}

std::string listed(const std::vector<std::int64_t>& layers) {
  std::string text;
  for (const std::int64_t layer : layers) text += concat(text.empty() ? "" : ", ", layer);
  return text;
}

std::string card(const FolderConversion& conversion, const ModelConfig& student) {
  const fs::path& teacher = conversion.teacher.empty() ? conversion.model : conversion.teacher;
  ModelCard card{.name = (conversion.output / ".").lexically_normal().parent_path().filename().string(),
                 .teacher = teacher.string(),
                 .layout = student.layout()};
  if (!conversion.restore.empty()) {
    card.history.push_back(concat("Layers ", listed(conversion.restore), " of `", conversion.model.string(),
                                  "` became attention again, with the weights of `", teacher.string(), "`."));
  }
  if (!conversion.layers.empty()) {
    card.history.push_back(concat("Layers ", listed(conversion.layers), " of `", conversion.model.string(), "` became ",
                                  conversion.target.type, " layers. They have not been trained."));
  }
  return card.history.empty() ? "" : model_card_text(card);
}

}  // namespace folder_conversion

void convert_folder(const FolderConversion& conversion) {
  const StoredModel source = StoredModel::open(conversion.model);
  std::optional<StoredModel> other;
  if (!conversion.teacher.empty()) other.emplace(StoredModel::open(conversion.teacher));
  const StoredModel& teacher = other ? *other : source;
  const ModelConfig restored = restored_config(source.config(), teacher.config(), conversion.restore, conversion.restore_place);
  check_conversion(restored, teacher.config(), conversion.layers, conversion.place);

  Model student(converted_config(restored, conversion.layers, conversion.target, conversion.place));
  student.to(at::kCPU, source.dtype());  // the tensors stay on the meta device
  folder_conversion::NewMixers mixers(conversion, teacher, student.config(), source.dtype());
  if (!conversion.layers.empty()) mixers.make(conversion.layers.front());  // says what does not fit before anything is written

  ExportOptions options = conversion.options;
  options.model_card = folder_conversion::card(conversion, student.config());
  options.like = conversion.model;
  options.source = [&](const std::string& name) {
    throw_if_interrupted();
    const at::Tensor fresh = mixers.find(name);
    if (fresh.defined()) return fresh;
    const bool from_teacher = folder_conversion::is_restored(name, conversion.restore);
    return (from_teacher ? teacher : source).parameter(name, at::kCPU, source.dtype());
  };
  options.before_writing = [&](std::int64_t bytes, std::int64_t free) {
    log_info(concat(conversion.output.string(), ": needs ", human_bytes(static_cast<double>(bytes)), " of disk, ",
                    human_bytes(static_cast<double>(free)), " are free"));
  };
  export_model(student, conversion.output, options);
}

}  // namespace molt
