#include "distill/objective.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include "distill/support.h"
#include "train/optimizer.h"

namespace molt::objective_test {

using namespace distill_test;

struct Pair {
  std::shared_ptr<Model> teacher = new_teacher();
  std::unique_ptr<Model> student = teacher->share();
  Pair() { convert_layers(*student, *teacher, {1, 2}, mamba(), 1, "layers"); }
};

TEST(Distillation, IsTheDivergenceOfTheLogits) {
  const Pair pair;
  const PackedBatch batch = random_batch({9, 1, 14});
  const at::Tensor ours = at::log_softmax(pair.student->logits(pair.student->forward(batch)).to(at::kDouble) / 1.5, 1);
  const at::Tensor theirs = at::log_softmax(pair.teacher->logits(pair.teacher->forward(batch)).to(at::kDouble) / 1.5, 1);
  const at::Tensor weights = batch.loss_weights.to(at::kDouble) * batch.targets.ge(0).to(at::kDouble);
  const double reverse = (((ours.exp() * (ours - theirs)).sum(1)) * weights).sum().item<double>();
  const double forward = (((theirs.exp() * (theirs - ours)).sum(1)) * weights).sum().item<double>();
  ASSERT_GT(reverse, 1e-3);

  const auto loss = [&](const ops::LossMix& mix) {
    return Distillation(pair.teacher, mix).loss(*pair.student, batch, Recompute::none);
  };
  EXPECT_NEAR(loss({.reverse_kl = 1, .temperature = 1.5}).sum.item<double>(), reverse, 1e-4 * reverse);
  EXPECT_NEAR(loss({.forward_kl = 1, .temperature = 1.5}).sum.item<double>(), forward, 1e-4 * forward);
  const Objective::Loss mixed = loss({.cross_entropy = 0.5, .forward_kl = 2, .reverse_kl = 3, .temperature = 1.5});
  const double expected = 0.5 * mixed.sums.at("cross_entropy").item<double>() + 2 * forward + 3 * reverse;
  EXPECT_NEAR(mixed.sum.item<double>(), expected, 1e-4 * expected);
  EXPECT_NEAR(mixed.sums.at("reverse_kl").item<double>(), reverse, 1e-4 * reverse);
  EXPECT_EQ(mixed.weight, batch.loss_weight);
}

TEST(Distillation, ATeacherLikeTheStudentHasNothingToTeach) {
  const std::shared_ptr<Model> teacher = new_teacher();
  const auto loss = Distillation(teacher, {.reverse_kl = 1}).loss(*teacher->share(), random_batch({20}), Recompute::none);
  EXPECT_NEAR(loss.sum.item<double>(), 0, 1e-5);
}

TEST(Distillation, OnlyTheStudentGetsGradients) {
  Pair pair;
  flatten_trainable([&](const ParameterVisitor& v) { pair.teacher->visit(v); }, [](const std::string&) { return true; });
  auto buffers = flatten_trainable([&](const ParameterVisitor& v) { pair.student->visit(v); },
                                   [](const std::string& name) { return name.starts_with("layers.1."); });
  for (FlatBuffer& buffer : buffers) zero_gradients(buffer);
  Distillation(pair.teacher, {.reverse_kl = 1}).loss(*pair.student, random_batch({12, 9}), Recompute::block).sum.backward();
  for (const Parameter& parameter : pair.teacher->parameters()) EXPECT_FALSE(parameter.value.grad().defined()) << parameter.name;
  for (const Parameter& parameter : pair.student->parameters()) {
    const bool trains = parameter.name.starts_with("layers.1.");
    ASSERT_EQ(parameter.value.grad().defined(), trains) << parameter.name;
    if (!trains) continue;
    EXPECT_GT(parameter.value.grad().abs().max().item<double>(), 0) << parameter.name;
  }
}

TEST(Distillation, CostsTheTeachersForwardPassToo) {
  const Pair pair;
  flatten_trainable([&](const ParameterVisitor& v) { pair.student->visit(v); }, [](const std::string&) { return true; });
  EXPECT_EQ(Distillation(pair.teacher, {.reverse_kl = 1}).flops(*pair.student, 100),
            3 * pair.student->flops(100) + pair.teacher->flops(100));
}

TEST(Distillation, VocabulariesMustAgree) {
  ModelConfig config = teacher_config();
  config.vocabulary = 10;
  Model other(config);
  other.initialise({}, at::kCPU, at::kFloat);
  const std::shared_ptr<Model> teacher = new_teacher();
  EXPECT_EQ(
      error_of([&] { Distillation(teacher, {.reverse_kl = 1}).loss(other, random_batch({5}), Recompute::none); }),
      concat("vocabulary: the student has 10 tokens and its teacher ", teacher->config().vocabulary, ", expected the same"));
}

double matching(const Pair& pair, const std::vector<std::int64_t>& layers, const PackedBatch& batch) {
  const auto loss = MixerMatching(pair.teacher, layers).loss(*pair.student, batch, Recompute::none);
  return loss.sum.item<double>() / loss.weight;
}

TEST(MixerMatching, IsZeroForTheTeachersOwnMixerAndOneForSilence) {
  const Pair pair;
  const PackedBatch batch = random_batch({15, 6});
  EXPECT_EQ(matching(pair, {0, 3}, batch), 0);
  parameter(*pair.student, "layers.1.mixers.mamba.out_proj.weight").zero_();
  EXPECT_NEAR(matching(pair, {1}, batch), 1, 1e-5);
  EXPECT_NEAR(matching(pair, {0, 1}, batch), 0.5, 1e-5);
}

TEST(MixerMatching, TheNewMixersLearnToSayWhatTheTeachersSays) {
  Pair pair;
  const std::vector<std::int64_t> layers = {1, 2};
  const auto trainable = [&](const std::vector<std::string>& patterns) {
    return MixerMatching::trainable(*pair.student, layers, patterns, "match.trainable");
  };
  EXPECT_EQ(trainable({"*.A_log", "layers.0.*", "!layers.2.*"}), std::vector<std::string>{"layers.1.mixers.mamba.A_log"});
  for (const std::string& name : trainable({"*"})) EXPECT_NE(name.find(".mixers.mamba."), std::string::npos) << name;
  EXPECT_NE(error_of([&] { trainable({"layers.0.*"}); }).find("match.trainable: found none of the new mixers' parameters"),
            std::string::npos);
  Optimizer optimizer({.learning_rate = 1e-2, .weight_decay = 0},
                      flatten_trainable([&](const ParameterVisitor& v) { pair.student->visit(v); },
                                        [](const std::string& name) { return name.find(".mamba.") != std::string::npos; }));
  const PackedBatch batch = random_batch({15, 6, 20});
  const double before = matching(pair, layers, batch);
  MixerMatching objective(pair.teacher, layers);
  for (int step = 0; step < 40; ++step) {
    optimizer.zero_gradients();
    const auto loss = objective.loss(*pair.student, batch, Recompute::none);
    loss.sum.backward();
    optimizer.step(1e-2, loss.weight);
  }
  EXPECT_LT(matching(pair, layers, batch), 0.3 * before);
}

}  // namespace molt::objective_test
