#include "distill/teacher.h"

#include <ATen/Functions.h>
#include <c10/core/GradMode.h>

#include "base/error.h"

namespace molt {

namespace teachers {

class Live : public Teacher {
 public:
  explicit Live(std::shared_ptr<const Model> model) : model_(std::move(model)) {}
  std::int64_t vocabulary() const override { return model_->config().vocabulary; }
  ops::TeacherHead targets(const PackedBatch& batch) const override {
    const c10::NoGradGuard no_grad;
    return {model_->forward(batch), model_->head_weight()};
  }
  double flops(std::int64_t context) const override { return model_->flops(context); }

 private:
  std::shared_ptr<const Model> model_;
};

class Stored : public Teacher {
 public:
  explicit Stored(std::shared_ptr<const StoredLogits> logits) : logits_(std::move(logits)) {}
  std::int64_t vocabulary() const override { return logits_->about().vocabulary; }
  ops::TeacherHead targets(const PackedBatch& batch) const override {
    const ops::TopProbabilities rows = logits_->rows(batch);
    const auto moved = [&](const at::Tensor& tensor) { return tensor.to(batch.device(), /*non_blocking=*/true); };
    return {{}, {}, {moved(rows.ids), moved(rows.log_probs)}};
  }
  double flops(std::int64_t) const override { return 0; }

 private:
  std::shared_ptr<const StoredLogits> logits_;
};

class Shortened : public Teacher {
 public:
  Shortened(std::shared_ptr<const Model> model, std::int64_t k, double temperature)
      : model_(std::move(model)), k_(k), temperature_(temperature) {}
  std::int64_t vocabulary() const override { return model_->config().vocabulary; }
  ops::TeacherHead targets(const PackedBatch& batch) const override {
    const c10::NoGradGuard no_grad;
    const ops::TopProbabilities top = ops::top_probabilities(model_->forward(batch), model_->head_weight(), k_, temperature_);
    return {{}, {}, {top.ids, top.log_probs.to(at::kHalf)}};
  }
  double flops(std::int64_t context) const override { return model_->flops(context); }

 private:
  std::shared_ptr<const Model> model_;
  std::int64_t k_;
  double temperature_;
};

}  // namespace teachers

std::shared_ptr<const Teacher> live_teacher(std::shared_ptr<const Model> model) {
  MOLT_CHECK(model, "a teacher without a model");
  return std::make_shared<teachers::Live>(std::move(model));
}

std::shared_ptr<const Teacher> stored_teacher(std::shared_ptr<const StoredLogits> logits) {
  MOLT_CHECK(logits, "a teacher without logits");
  return std::make_shared<teachers::Stored>(std::move(logits));
}

std::shared_ptr<const Teacher> shortened_teacher(std::shared_ptr<const Model> model, std::int64_t k, double temperature) {
  return std::make_shared<teachers::Shortened>(std::move(model), k, temperature);
}

}  // namespace molt
