// What a distillation minimises: divergences from a teacher's next-token distribution, or the distance between the outputs of
// converted mixers and of those they replace.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "distill/teacher.h"
#include "ops/linear_loss/loss_mix.h"
#include "train/objective.h"

namespace molt {

// End to end: a mix of divergences from the teacher and cross-entropy (ops::LossMix), token by token. A live teacher's logits are
// formed in the student's chunks and never kept. The teacher has the student's vocabulary (UserError), a live one its device.
class Distillation : public Objective {
 public:
  Distillation(std::shared_ptr<const Teacher> teacher, const ops::LossMix& mix);
  Distillation(std::shared_ptr<const Model> teacher, const ops::LossMix& mix);
  std::string name() const override;  // "reverse_kl", "forward_kl", "jsd", …; "loss" for a mix
  // Sums: each part of the mix, and cross_entropy whatever the mix.
  Loss loss(const Model& student, const PackedBatch& batch, Recompute recompute) override;
  double flops(const Model& student, std::int64_t context) const override;  // the teacher's forward pass included

 private:
  std::shared_ptr<const Teacher> teacher_;
  ops::LossMix mix_;
};

// Layer by layer, before end to end: each mixer of `layers` is fed what the teacher's mixer of that layer is fed, and its output
// is drawn towards the teacher's. A token's loss is the squared distance divided by the mean square of the teacher's outputs in
// that layer, averaged over layers: 1 for a mixer that gives nothing, 0 for a perfect one. (The hidden-state stage of MOHAWK,
// arXiv 2408.10189.)
class MixerMatching : public Objective {
 public:
  MixerMatching(std::shared_ptr<const Model> teacher, std::vector<std::int64_t> layers);
  std::string name() const override { return "matching"; }
  Loss loss(const Model& student, const PackedBatch& batch, Recompute recompute) override;
  double flops(const Model& student, std::int64_t context) const override;
  // Names of the parameters that it trains: of the new mixers' those that `patterns` pick (select_names); UserError of `place`
  // when that is none.
  static std::vector<std::string> trainable(Model& student, const std::vector<std::int64_t>& layers,
                                            const std::vector<std::string>& patterns, const std::string& place);

 private:
  std::shared_ptr<const Model> teacher_;
  std::vector<std::int64_t> layers_;
};

}  // namespace molt
