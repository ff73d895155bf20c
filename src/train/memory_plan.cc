#include "train/memory_plan.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/progress.h"
#include "ops/linear_loss/loss_memory.h"

namespace molt {

namespace memory_plan {

constexpr double fp32_bytes = 4, workspaces = 64 << 20;

// Values of one token in one block.
struct Values {
  double mixer = 0, block = 0;  // kept for backward; the block's without the mixer's
  double widest = 0;            // of a product's output
};

Values values_of(Block& block) {
  Values values;
  block.visit("", [&](const std::string& name, at::Tensor& value) {
    if (value.dim() != 2 || !name.ends_with(".weight")) return;
    (name.starts_with(".mixers.") ? values.mixer : values.block) += static_cast<double>(value.size(0) + value.size(1));
    values.widest = std::max(values.widest, static_cast<double>(value.size(0)));
  });
  return values;
}

// Of a forward pass without gradients: the widest product's output, its input and the residual stream.
double passing(Model& model) {
  double widest = 0;
  for (Block& block : model.blocks) widest = std::max(widest, values_of(block).widest);
  return 1.5 * widest + 3 * static_cast<double>(model.config().hidden_size);
}

double logits(const Model& model, bool teacher, const ActivationShape& shape) {
  const auto tokens = std::llround(shape.loss_share * static_cast<double>(shape.tokens));
  return ops::loss_chunks(tokens, model.config().vocabulary, teacher, /*gradient=*/true, shape.dtype, shape.device).bytes;
}

}  // namespace memory_plan

OrderedJson to_json(const MemoryPlan& plan) {
  const auto whole = [](double bytes) { return std::llround(bytes); };
  return {{"teacher", whole(plan.teacher)},     {"student", whole(plan.student)}, {"gradients", whole(plan.gradients)},
          {"optimizer", whole(plan.optimizer)}, {"saving", whole(plan.saving)},   {"activations", whole(plan.activations)},
          {"sampling", whole(plan.sampling)},   {"total", whole(plan.total())}};
}

std::string memory_text(const MemoryPlan& plan) {
  std::string parts;
  const auto add = [&](const char* name, double bytes) {
    if (bytes > 0) parts += concat(parts.empty() ? ": " : ", ", name, " ", human_bytes(bytes));
  };
  add("weights", plan.teacher + plan.student);
  add("gradients", plan.gradients);
  add("optimizer", plan.optimizer);
  add("copy to save", plan.saving);
  add("activations", plan.activations);
  add("caches of sampling", plan.sampling);
  return human_bytes(plan.total()) + parts;
}

double activation_bytes(Model& student, Model* teacher, const ActivationShape& shape) {
  using namespace memory_plan;
  const auto hidden = static_cast<double>(student.config().hidden_size);
  const double unit = static_cast<double>(shape.tokens) * static_cast<double>(c10::elementSize(shape.dtype));
  double kept = 0, largest_block = 0, largest_mixer = 0, widest = 0;
  for (Block& block : student.blocks) {
    const Values values = values_of(block);
    const double mixer = values.mixer * unit + block.kept_states(shape.tokens, shape.dtype, shape.device);
    const double all = mixer + values.block * unit;
    kept += shape.recompute == Recompute::block   ? hidden * unit
            : shape.recompute == Recompute::mixer ? (hidden + values.block) * unit
                                                  : all;
    largest_block = std::max(largest_block, all);
    largest_mixer = std::max(largest_mixer, mixer);
    widest = std::max(widest, values.widest);
  }
  // Of the final norm: its input, its output and the output's gradient; of the teacher its final hidden states.
  const double ends = (teacher ? 4 : 3) * hidden;
  const double again = shape.recompute == Recompute::block   ? largest_block
                       : shape.recompute == Recompute::mixer ? largest_mixer
                                                             : 0;
  const double at_loss = kept + ends * unit + logits(student, teacher || shape.stored_teacher, shape);
  const double in_backward = kept + again + (ends + widest + 2 * hidden) * unit;
  return std::max({at_loss, in_backward, teacher ? passing(*teacher) * unit : 0}) + (shape.device.is_cuda() ? workspaces : 0);
}

void plan_training(MemoryPlan& plan, double trained, const LoopConfig& loop, at::ScalarType dtype, at::Device device) {
  const bool master = dtype != at::kFloat && dtype != at::kDouble;
  plan.gradients = trained * memory_plan::fp32_bytes;
  const double averages = loop.average_decay > 0 ? 1 : 0;
  plan.optimizer = trained * memory_plan::fp32_bytes * ((master ? 3 : 2) + averages);
  plan.saving = device.is_cpu() && loop.save_in_background ? trained * memory_plan::fp32_bytes * (3 + averages) : 0;
}

}  // namespace molt
