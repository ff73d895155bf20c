#include "distill/objective.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <c10/core/GradMode.h>

#include "base/error.h"
#include "ops/linear_loss/linear_loss.h"
#include "train/patterns.h"

namespace molt {

Distillation::Distillation(std::shared_ptr<const Teacher> teacher, const ops::LossMix& mix)
    : teacher_(std::move(teacher)), mix_(mix) {
  MOLT_CHECK(teacher_, "a distillation needs a teacher");
}

Distillation::Distillation(std::shared_ptr<const Model> teacher, const ops::LossMix& mix)
    : Distillation(live_teacher(std::move(teacher)), mix) {}

std::string Distillation::name() const {
  std::string only;
  for (const auto& [factor, part] :
       {std::pair(mix_.cross_entropy, "cross_entropy"), std::pair(mix_.forward_kl, "forward_kl"),
        std::pair(mix_.reverse_kl, "reverse_kl"), std::pair(mix_.jsd, "jsd"), std::pair(mix_.z, "z_loss")}) {
    if (factor == 0) continue;
    if (!only.empty()) return "loss";
    only = part;
  }
  return only;
}

Objective::Loss Distillation::loss(const Model& student, const PackedBatch& batch, Recompute recompute) {
  require(student.config().vocabulary == teacher_->vocabulary(), "vocabulary: the student has ", student.config().vocabulary,
          " tokens and its teacher ", teacher_->vocabulary(), ", expected the same");
  const ops::TeacherHead head = teacher_->targets(batch);
  const at::Tensor hidden = student.forward(batch, recompute);
  const ops::LossResult result = ops::linear_loss(hidden, student.head_weight(), batch.targets, batch.loss_weights, mix_, head,
                                                  loss_options(student, batch));
  return {result.sum, batch.loss_weight, loss_sums(result, batch)};
}

double Distillation::flops(const Model& student, std::int64_t context) const {
  return Objective::flops(student, context) + teacher_->flops(context);
}

MixerMatching::MixerMatching(std::shared_ptr<const Model> teacher, std::vector<std::int64_t> layers)
    : teacher_(std::move(teacher)), layers_(std::move(layers)) {
  MOLT_CHECK(teacher_ && !layers_.empty(), "matching needs a teacher and layers");
}

Objective::Loss MixerMatching::loss(const Model& student, const PackedBatch& batch, Recompute) {
  Taps taps;
  for (const auto layer : layers_) {
    taps.wanted.insert(concat("layers.", layer, ".mixer.input"));
    taps.wanted.insert(concat("layers.", layer, ".mixer.output"));
  }
  {
    const c10::NoGradGuard no_grad;
    teacher_->forward(batch, Recompute::none, &taps);
  }
  at::Tensor sum;
  for (const auto layer : layers_) {
    const at::Tensor input = taps.found.at(concat("layers.", layer, ".mixer.input"));
    const at::Tensor target = taps.found.at(concat("layers.", layer, ".mixer.output")).to(at::kFloat);
    const at::Tensor output = student.blocks[static_cast<std::size_t>(layer)].mixer().forward(input, batch).to(at::kFloat);
    const at::Tensor scale = target.square().mean().clamp_min(1e-12) * static_cast<double>(target.size(1) * layers_.size());
    const at::Tensor distance = (output - target).square().sum() / scale;
    sum = sum.defined() ? sum + distance : distance;
  }
  return {sum, static_cast<double>(batch.size()), {}};
}

double MixerMatching::flops(const Model& student, std::int64_t context) const {
  double total = teacher_->flops(context);
  for (const auto layer : layers_) total += 3 * student.blocks[static_cast<std::size_t>(layer)].mixer().flops(context);
  return total;
}

std::vector<std::string> MixerMatching::trainable(Model& student, const std::vector<std::int64_t>& layers,
                                                  const std::vector<std::string>& patterns, const std::string& place) {
  std::vector<std::string> mixers, names, trained;
  for (const auto layer : layers) {
    const auto& block = student.config().blocks[static_cast<std::size_t>(layer)];
    mixers.push_back(concat("layers.", layer, ".mixers.", block.active, ".*"));
  }
  for (const Parameter& parameter : student.parameters()) names.push_back(parameter.name);
  for (const std::string& name : select_names(patterns, names, place)) {
    if (matches_any(mixers, name)) trained.push_back(name);
  }
  require(!trained.empty(), place, ": found none of the new mixers' parameters among those it picks, expected some, such as ",
          mixers.front());
  return trained;
}

}  // namespace molt
