#include "train/objective.h"

#include <c10/core/GradMode.h>

#include "base/error.h"
#include "base/interrupt.h"
#include "ops/linear_loss/linear_loss.h"

namespace molt {

double Objective::flops(const Model& model, std::int64_t context) const {
  return 3.0 * model.flops(context);  // backward: two products for each of forward's
}

ops::LossOptions loss_options(const Model& model, const PackedBatch& batch) {
  const at::Tensor& head = model.head_weight();
  return {batch.loss_tokens, head.is_leaf() && head.grad().defined()};
}

Objective::Loss NextToken::loss(const Model& model, const PackedBatch& batch, Recompute recompute) {
  const at::Tensor hidden = model.forward(batch, recompute);
  const ops::LossResult result =
      ops::linear_cross_entropy(hidden, model.head_weight(), batch.targets, batch.loss_weights, loss_options(model, batch));
  return {result.sum, batch.loss_weight, {{"cross_entropy", result.sum.detach()}}};
}

HeldOutLoss::HeldOutLoss(std::string name, Objective& objective, std::vector<PackedBatch> batches)
    : name_(std::move(name)), objective_(objective), batches_(std::move(batches)) {
  double weight = 0;
  for (const PackedBatch& batch : batches_) weight += batch.loss_weight;
  require(weight > 0, "held-out data \"", name_, "\": found no token with a loss weight, expected at least one");
}

std::map<std::string, double> HeldOutLoss::evaluate(const Model& model) {
  const c10::NoGradGuard no_grad;
  std::map<std::string, double> figures;
  double weight = 0;
  for (const PackedBatch& batch : batches_) {
    throw_if_interrupted();
    const Objective::Loss loss = objective_.loss(model, batch.to(model.device()), Recompute::none);
    figures["loss"] += loss.sum.item<double>();
    for (const auto& [name, sum] : loss.sums) figures[name] += sum.item<double>();
    weight += loss.weight;
  }
  for (auto& [name, value] : figures) value /= weight;
  return figures;
}

}  // namespace molt
