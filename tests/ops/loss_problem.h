// What the tests of losses share: a student, its teacher and targets, and a result taken apart.
#pragma once
#include "ops/compare.h"
#include "ops/linear_loss/linear_loss.h"

namespace molt::ops {

// Final hidden states (tokens, hidden) and heads (vocabulary, hidden), the teacher's three wider; on the CPU, fp64.
struct LossProblem {
  at::Tensor hidden, weight, teacher_hidden, teacher_weight, targets, loss_weights;

  TeacherHead head(const at::TensorOptions& like) const { return {teacher_hidden.to(like), teacher_weight.to(like)}; }
  // The same teacher known by its k largest probabilities.
  TeacherHead top(std::int64_t k, double temperature, const at::TensorOptions& like) const {
    return {{}, {}, top_probabilities(teacher_hidden.to(like), teacher_weight.to(like), k, temperature)};
  }
};

// Every third token carries no weight or a quarter, every seventh has no target.
inline LossProblem loss_problem(std::int64_t tokens, std::int64_t vocabulary, std::int64_t hidden = 12) {
  LossProblem p{test_normal({tokens, hidden}, 1),
                test_normal({vocabulary, hidden}, 2),
                test_normal({tokens, hidden + 3}, 3),
                test_normal({vocabulary, hidden + 3}, 4) * 0.5,
                at::arange(tokens, at::kLong) * 5 % vocabulary,
                at::ones({tokens}, at::kFloat)};
  for (std::int64_t i = 0; i < tokens; ++i) {
    if (i % 3 == 1) p.loss_weights[i] = i % 2 == 0 ? 0.0 : 0.25;
    if (i % 7 == 3) p.targets[i] = ignored_target;
  }
  return p;
}

// The sum, then the parts of each token, so that they enter a comparison of values (they carry no gradient).
inline TestTensors loss_parts(const LossResult& result) {
  TestTensors all{result.sum};
  for (const at::Tensor& part : {result.cross_entropy, result.forward_kl, result.reverse_kl, result.jsd, result.z_loss})
    if (part.defined()) all.push_back(part);
  return all;
}

}  // namespace molt::ops
