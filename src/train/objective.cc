#include "train/objective.h"

#include <ATen/Functions.h>
#include <c10/core/GradMode.h>

#include "base/error.h"
#include "base/interrupt.h"
#include "ops/linear_loss/linear_loss.h"

namespace molt {

double Objective::flops(const Model& model, std::int64_t context) const {
  // Backward has two products for each of forward's, but that by a frozen weight is not computed; adapters have all three.
  double products = 0;
  auto& self = const_cast<Model&>(model);  // visit() hands modules out to be changed; here they are only read
  self.visit(ParameterVisitor::of_linears([&](const std::string&, Linear& linear) {
    if (!linear.weight.requires_grad()) products -= static_cast<double>(linear.weight.numel());
    for (const Linear::Adapter& adapter : linear.adapters)
      products += 3.0 * static_cast<double>(adapter.A.numel() + adapter.B.numel());
  }));
  if (model.config().tied_embeddings && !model.embedding.requires_grad())
    products -= static_cast<double>(model.embedding.numel());
  return 3.0 * model.flops(context) + 2.0 * products;
}

ops::LossOptions loss_options(const Model& model, const PackedBatch& batch) {
  const at::Tensor& head = model.head_weight();
  return {batch.loss_tokens, head.is_leaf() && head.grad().defined()};
}

std::map<std::string, at::Tensor> loss_sums(const ops::LossResult& result, const PackedBatch& batch) {
  std::map<std::string, at::Tensor> sums;
  const auto add = [&](const char* name, const at::Tensor& parts) {
    if (parts.defined()) sums[name] = at::dot(parts, batch.loss_weights.to(parts.scalar_type()));
  };
  add("cross_entropy", result.cross_entropy);
  add("forward_kl", result.forward_kl);
  add("reverse_kl", result.reverse_kl);
  add("jsd", result.jsd);
  add("z_loss", result.z_loss);
  return sums;
}

Objective::Loss NextToken::loss(const Model& model, const PackedBatch& batch, Recompute recompute) {
  const at::Tensor hidden = model.forward(batch, recompute);
  const ops::LossMix mix{.cross_entropy = 1, .z = z_loss_};
  const ops::LossResult result =
      ops::linear_loss(hidden, model.head_weight(), batch.targets, batch.loss_weights, mix, {}, loss_options(model, batch));
  if (z_loss_ > 0) return {result.sum, batch.loss_weight, loss_sums(result, batch)};
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
