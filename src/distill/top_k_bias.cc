#include "distill/top_k_bias.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/progress.h"
#include "distill/objective.h"

namespace molt {

namespace top_k_biases {

struct Measured {
  double loss = 0;      // mean over loss tokens
  at::Tensor gradient;  // of that mean, every parameter's end to end
};

Measured measure(const Model& student, std::vector<FlatBuffer>& buffers, Objective& objective,
                 const std::vector<PackedBatch>& batches) {
  for (FlatBuffer& buffer : buffers) zero_gradients(buffer);
  double sum = 0, weight = 0;
  for (const PackedBatch& batch : batches) {
    throw_if_interrupted();
    const Objective::Loss loss = objective.loss(student, batch.to(student.device()), Recompute::none);
    loss.sum.backward();
    sum += loss.sum.item<double>();
    weight += loss.weight;
  }
  std::vector<at::Tensor> gradients;
  for (const FlatBuffer& buffer : buffers) gradients.push_back(buffer.gradients.to(at::kDouble));
  return {sum / weight, at::cat(gradients) / weight};
}

// Mean over loss tokens of what lies outside the k most probable ones.
double mass_of_others(const Teacher& teacher, const std::vector<PackedBatch>& batches, at::Device device) {
  double sum = 0, weight = 0;
  for (const PackedBatch& batch : batches) {
    const at::Tensor log_probs = teacher.targets(batch.to(device)).top.log_probs.cpu().to(at::kDouble);
    sum += (log_probs.select(1, -1).exp() * batch.loss_weights).sum().item<double>();
    weight += batch.loss_weight;
  }
  return sum / weight;
}

}  // namespace top_k_biases

OrderedJson TopKReport::to_json() const {
  OrderedJson json{{"tokens", tokens}, {"figures", OrderedJson::array()}};
  for (const TopKBias& each : figures) {
    json["figures"].push_back({{"loss", each.loss},
                               {"k", each.k},
                               {"outside", each.outside},
                               {"exact", each.exact},
                               {"shortened", each.shortened},
                               {"gradient_error", each.gradient_error},
                               {"cosine", each.cosine}});
  }
  return json;
}

TopKReport top_k_bias(Model& student, const std::shared_ptr<const Model>& teacher, const std::vector<PackedBatch>& batches,
                      const std::vector<std::int64_t>& ks) {
  using namespace top_k_biases;
  const std::int64_t vocabulary = teacher->config().vocabulary;
  for (const std::int64_t k : ks) {
    require(k >= 1 && k <= vocabulary, "--top-k: found ", k, ", expected numbers from 1 to ", vocabulary, ", the vocabulary");
  }
  std::vector<FlatBuffer> buffers =
      flatten_trainable([&](const ParameterVisitor& v) { student.visit(v); }, [](const std::string&) { return true; });
  TopKReport report;
  for (const PackedBatch& batch : batches) report.tokens += batch.loss_tokens.numel();
  std::vector<double> outside;
  for (const std::int64_t k : ks) outside.push_back(mass_of_others(*shortened_teacher(teacher, k, 1), batches, student.device()));
  const std::vector<ops::LossMix> mixes{{.reverse_kl = 1}, {.forward_kl = 1}, {.jsd = 1}};
  Progress progress("top-k", static_cast<std::int64_t>(mixes.size() * (ks.size() + 1)), "passes");
  std::int64_t done = 0;
  for (const ops::LossMix& mix : mixes) {
    Distillation whole(live_teacher(teacher), mix);
    const Measured exact = measure(student, buffers, whole, batches);
    progress.update(++done);
    for (std::size_t i = 0; i < ks.size(); ++i) {
      Distillation shortened(shortened_teacher(teacher, ks[i], 1), mix);
      const Measured found = measure(student, buffers, shortened, batches);
      const double norm = exact.gradient.norm().item<double>();
      report.figures.push_back(
          {.loss = whole.name(),
           .k = ks[i],
           .outside = outside[i],
           .exact = exact.loss,
           .shortened = found.loss,
           .gradient_error = (found.gradient - exact.gradient).norm().item<double>() / norm,
           .cosine = at::dot(found.gradient, exact.gradient).item<double>() / (norm * found.gradient.norm().item<double>())});
      progress.update(++done);
    }
  }
  progress.finish();
  return report;
}

}  // namespace molt
