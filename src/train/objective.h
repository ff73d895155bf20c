// What a training step minimises. The loop knows this interface only; next-token loss lives in train/, distillation in distill/.
#pragma once
#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

#include "model/batch.h"
#include "model/block.h"
#include "model/model.h"

namespace molt {

namespace ops {
struct LossOptions;
struct LossResult;
}  // namespace ops

class Objective {
 public:
  struct Loss {
    // fp32 scalar with a graph: the sum over loss tokens of weight * loss. To be differentiated once and with a slope of one:
    // where the head has a gradient, its part of this one is in it already (loss_options).
    at::Tensor sum;
    // Sum of the loss weights behind it (batch.loss_weight, usually); the step's loss is total sum / total weight over
    // micro-batches and ranks.
    double weight = 0;
    // Detached scalars to report, summed over loss tokens likewise: "cross_entropy", "reverse_kl", "agreement".
    std::map<std::string, at::Tensor> sums;
  };

  virtual ~Objective() = default;
  virtual std::string name() const = 0;  // of the loss in metrics: "cross_entropy", "reverse_kl"
  virtual Loss loss(const Model& model, const PackedBatch& batch, Recompute recompute) = 0;
  // Useful FLOPs of forward and backward for one token at a context, for FLOP/s figures (a teacher's forward included,
  // recomputing not). Products for gradients of frozen weights are none.
  virtual double flops(const Model& model, std::int64_t context) const;
};

// The parts of a loss summed over loss tokens, by name: "cross_entropy", "forward_kl", "reverse_kl", "jsd",
// "z_loss".
std::map<std::string, at::Tensor> loss_sums(const ops::LossResult& result, const PackedBatch& batch);

// How an objective calls linear_loss: for the batch's loss tokens, and adding to the head's gradient where the model has one, so
// that it is never in memory twice.
ops::LossOptions loss_options(const Model& model, const PackedBatch& batch);

// Cross-entropy with the next token, and z_loss times the z-loss (ops::LossMix).
class NextToken : public Objective {
 public:
  explicit NextToken(double z_loss = 0) : z_loss_(z_loss) {}
  std::string name() const override { return z_loss_ > 0 ? "loss" : "cross_entropy"; }
  Loss loss(const Model& model, const PackedBatch& batch, Recompute recompute) override;

 private:
  double z_loss_;
};

// Figures of a model at a step, measured every so often by the loop and written to the metrics: held-out loss, task accuracy.
class Evaluator {
 public:
  virtual ~Evaluator() = default;
  virtual std::string name() const = 0;
  virtual std::map<std::string, double> evaluate(const Model& model) = 0;
};

// An objective's mean loss and sums over fixed batches that are not trained on: "loss", "cross_entropy".
class HeldOutLoss : public Evaluator {
 public:
  HeldOutLoss(std::string name, Objective& objective, std::vector<PackedBatch> batches);
  std::string name() const override { return name_; }
  std::map<std::string, double> evaluate(const Model& model) override;

 private:
  std::string name_;
  Objective& objective_;
  std::vector<PackedBatch> batches_;
};

}  // namespace molt
