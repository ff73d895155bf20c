// A teacher known by its k largest probabilities: what is kept of it, and the loss over k + 1 outcomes with its gradients.
#include "ops/linear_loss/top_probabilities.h"

#include "ops/compare.h"
#include "ops/devices.h"
#include "ops/linear_loss/loss_memory.h"
#include "ops/loss_problem.h"

namespace molt::ops {
namespace top_probabilities_test {

const std::vector<LossMix> kMixes{{.forward_kl = 1},
                                  {.reverse_kl = 1},
                                  {.jsd = 1},
                                  {.jsd = 1, .beta = 0.9, .temperature = 2},
                                  {.reverse_kl = 1, .temperature = 0.5},
                                  {.cross_entropy = 0.3, .forward_kl = 0.5, .reverse_kl = 0.7},
                                  {.cross_entropy = 0.3, .forward_kl = 0.2, .reverse_kl = 0.7, .jsd = 0.5, .beta = 0.1, .z = 0.2},
                                  {.forward_kl = 0.5, .reverse_kl = 0.7, .z = 0.2, .temperature = 2}};

// The sum and the parts of each token; `teacher` gives the side that is compared with.
template <class Teacher>
TestFunction loss_function(const LossProblem& p, const LossMix& mix, bool composite, const Teacher& teacher) {
  return [&p, mix, composite, teacher](const TestTensors& in) {
    const at::Tensor targets = p.targets.to(in[0].device()), weights = p.loss_weights.to(in[0].device());
    return loss_parts(composite ? linear_loss_composite(in[0], in[1], targets, weights, mix, teacher(in[0].options()))
                                : linear_loss(in[0], in[1], targets, weights, mix, teacher(in[0].options())));
  };
}

TEST(TopProbabilities, AreTheLargestAndTheRest) {
  for (const at::Device device : test_devices())
    for (const at::ScalarType dtype : {at::kFloat, at::kDouble})
      for (const auto& [tokens, vocabulary, k] : {std::tuple(0, 9, 3), {1, 1, 1}, {20, 13, 1}, {300, 50, 7}, {30, 50, 50}})
        for (const double temperature : {1.0, 0.5, 3.0}) {
          SCOPED_TRACE(testing::Message() << tokens << " tokens, " << k << " of " << vocabulary << ", temperature "
                                          << temperature);
          const LossProblem p = loss_problem(tokens, vocabulary);
          const TopProbabilities found =
              top_probabilities(p.hidden.to(device, dtype), p.weight.to(device, dtype), k, temperature);
          const at::Tensor all = (p.hidden.matmul(p.weight.t()) / temperature).softmax(1);
          const at::Tensor largest = std::get<0>(all.topk(k, 1)), of_ids = all.gather(1, found.ids.cpu());
          const double tolerance = dtype == at::kFloat ? 1e-4 : 1e-12;
          const at::Tensor found_largest = found.log_probs.slice(1, 0, k).exp(), rest = found.log_probs.select(1, k).exp();
          EXPECT_LT(relative_error(found_largest, largest), tolerance);
          EXPECT_LT(relative_error(found_largest, of_ids), tolerance);
          EXPECT_LT(relative_error(rest, 1 - largest.sum(1)), tolerance);
          EXPECT_EQ(found.ids.scalar_type(), at::kLong);
          EXPECT_EQ(found.log_probs.scalar_type(), dtype);
          EXPECT_TRUE(k < vocabulary || rest.eq(0).all().item<bool>());
        }
}

// 1 - 0.99999999 has no digit left in fp32; the sum over the others has all of them.
TEST(TopProbabilities, ASmallRestIsExact) {
  for (const at::Device device : test_devices()) {
    at::Tensor weight = at::zeros({10, 1}, device);
    weight[3] = 25;
    const TopProbabilities found = top_probabilities(at::ones({1, 1}, device), weight, 1);
    EXPECT_NEAR(found.log_probs[0][1].item<double>(), std::log(9.0) - 25, 1e-5);
  }
}

TEST(TopLoss, ChunksGiveWhatTheWholeGives) {
  for (const at::Device device : test_devices())
    for (const at::ScalarType dtype : {at::kFloat, at::kDouble})
      for (const auto& [tokens, vocabulary, k] :
           {std::tuple(0, 16, 4), {1, 16, 4}, {9, 1, 1}, {20, 13, 12}, {20, 13, 13}, {300, 50, 1}, {9, 5003, 64}})
        for (const LossMix& mix : kMixes) {
          SCOPED_TRACE(testing::Message() << tokens << " tokens, " << k << " of " << vocabulary);
          const LossProblem p = loss_problem(tokens, vocabulary);
          const TopProbabilities top = top_probabilities(p.teacher_hidden, p.teacher_weight, k, mix.temperature);
          const auto stored = [&](const at::TensorOptions& like) {
            return TeacherHead{{}, {}, {top.ids.to(like.device(), at::kInt), top.log_probs.to(like)}};
          };
          expect_same(loss_function(p, mix, false, stored), loss_function(p, mix, true, stored), {p.hidden, p.weight}, device,
                      dtype, dtype == at::kFloat ? 1e-4 : 1e-10);
        }
}

TEST(TopLoss, IsTheWholeLossWhereNothingIsLeftOut) {
  for (const at::Device device : test_devices())
    for (const LossMix& mix : kMixes) {
      SCOPED_TRACE(testing::Message() << "forward " << mix.forward_kl << ", reverse " << mix.reverse_kl << ", jsd " << mix.jsd);
      const LossProblem p = loss_problem(40, 23);
      const auto whole = [&](const at::TensorOptions& like) { return p.head(like); };
      const auto all = [&](const at::TensorOptions& like) { return p.top(23, mix.temperature, like); };
      expect_same(loss_function(p, mix, false, all), loss_function(p, mix, false, whole), {p.hidden, p.weight}, device,
                  at::kDouble, 1e-12);
    }
}

TEST(TopLoss, GradientsAreThoseOfDifferences) {
  const LossProblem p = loss_problem(6, 7, 3);
  for (const std::int64_t k : {1, 3, 7})
    for (const LossMix& mix : kMixes) {
      const auto top = [&](const at::TensorOptions& like) { return p.top(k, mix.temperature, like); };
      expect_gradients_of_differences(
          [f = loss_function(p, mix, false, top)](const TestTensors& in) -> TestTensors { return {f(in)[0]}; },
          {p.hidden, p.weight});
    }
}

// What is merged can only bring two distributions closer, and less of it the less is merged.
TEST(TopLoss, RisesToTheWholeDivergence) {
  for (const at::Device device : test_devices()) {
    const LossProblem p = loss_problem(50, 200);
    const at::TensorOptions like = at::TensorOptions(device).dtype(at::kDouble);
    for (const LossMix& mix : {kMixes[0], kMixes[1], kMixes[2]}) {
      const auto sum = [&](const TeacherHead& teacher) {
        return linear_loss(p.hidden.to(like), p.weight.to(like), p.targets.to(device), p.loss_weights.to(device), mix, teacher)
            .sum.item<double>();
      };
      double before = 0;
      for (const std::int64_t k : {1, 4, 16, 64, 199}) {
        const double now = sum(p.top(k, 1, like));
        EXPECT_GT(now, before) << k;
        before = now;
      }
      EXPECT_LE(before, sum(p.head(like)) * (1 + 1e-12));
    }
  }
}

// As they lie on disk: logarithms rounded to fp16, whose probabilities then do not quite sum to one.
TEST(TopLoss, TakesRoundedLogarithms) {
  for (const at::Device device : test_devices()) {
    const LossProblem p = loss_problem(60, 100);
    const TopProbabilities top = top_probabilities(p.teacher_hidden, p.teacher_weight, 8);
    const auto exact = [&](const at::TensorOptions& like) { return p.top(8, 1, like); };
    const auto stored = [&](const at::TensorOptions& like) {
      return TeacherHead{{}, {}, {top.ids.to(like.device(), at::kInt), top.log_probs.to(like.device(), at::kHalf)}};
    };
    expect_same(loss_function(p, kMixes[5], false, stored), loss_function(p, kMixes[5], true, exact), {p.hidden, p.weight},
                device, at::kFloat, 2e-2);
    expect_same(loss_function(p, kMixes[5], false, stored), loss_function(p, kMixes[5], true, stored), {p.hidden, p.weight},
                device, at::kFloat, 1e-4);
  }
}

// Rows that carry no loss are poisoned: one multiplication with them would show.
TEST(TopLoss, TokensWithoutWeightNeedNoRow) {
  for (const at::Device device : test_devices()) {
    const LossProblem p = loss_problem(30, 20);
    TopProbabilities top = top_probabilities(p.teacher_hidden, p.teacher_weight, 4);
    const at::Tensor unused = p.loss_weights.eq(0).logical_or(p.targets.eq(ignored_target));
    top.log_probs.masked_fill_(unused.unsqueeze(1), NAN);
    top.ids.masked_fill_(unused.unsqueeze(1), -1);
    const at::Tensor hidden = p.hidden.to(device, at::kFloat).requires_grad_(true);
    const at::Tensor weight = p.weight.to(device, at::kFloat).requires_grad_(true);
    const LossResult out = linear_loss(hidden, weight, p.targets.to(device), p.loss_weights.to(device), {.reverse_kl = 1},
                                       {{}, {}, {top.ids.to(device), top.log_probs.to(device)}});
    out.sum.backward();
    EXPECT_GT(out.sum.item<double>(), 0);
    EXPECT_TRUE(weight.grad().isfinite().all().item<bool>());
    EXPECT_TRUE(hidden.grad().isfinite().all().item<bool>());
  }
}

TEST(TopLoss, SeveralChunksAddUpInTheGradientThatIsThere) {
  for (const at::Device device : test_devices())
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      const std::int64_t tokens = 552, vocabulary = 40000;
      const LossProblem p = loss_problem(tokens, vocabulary, 4);
      ASSERT_TRUE(device.is_cuda() || loss_chunks(tokens, vocabulary, true, true, dtype, device).rows < tokens);
      const LossMix mix{.cross_entropy = 0.5, .reverse_kl = 0.5};
      const at::TensorOptions like = at::TensorOptions(device).dtype(dtype);
      const TeacherHead teacher = p.top(64, 1, like);
      const auto leaf = [&](const at::Tensor& value) { return value.to(like).clone().requires_grad_(true); };
      const auto run = [&](std::int64_t step, bool add) {
        const at::Tensor weight = leaf(p.weight), hidden = leaf(p.hidden);
        weight.set_grad_dtype(at::kFloat);
        weight.mutable_grad() = at::zeros(weight.sizes(), like.dtype(at::kFloat));
        for (std::int64_t begin = 0; begin < tokens; begin += step) {
          const auto part = [&](const at::Tensor& x) { return x.slice(0, begin, std::min(tokens, begin + step)); };
          linear_loss(part(hidden), weight, part(p.targets).to(device), part(p.loss_weights).to(device), mix,
                      {{}, {}, {part(teacher.top.ids), part(teacher.top.log_probs)}}, {.add_weight_gradient = add})
              .sum.backward();
        }
        return TestTensors{weight.grad(), hidden.grad()};
      };
      const TestTensors whole = run(tokens, true), pieces = run(100, false);
      const double tolerance = dtype == at::kFloat ? 1e-5 : 1e-2;
      EXPECT_LT(relative_error(whole[0], pieces[0]), tolerance);
      EXPECT_LT(relative_error(whole[1], pieces[1]), tolerance);
    }
}

TEST(TopLoss, RefusesWhatDoesNotFit) {
  const LossProblem p = loss_problem(5, 9);
  const TopProbabilities top = top_probabilities(p.teacher_hidden, p.teacher_weight, 3);
  const auto loss = [&](const TeacherHead& teacher) { linear_loss(p.hidden, p.weight, {}, {}, {.reverse_kl = 1}, teacher); };
  EXPECT_NO_THROW(loss({{}, {}, top}));
  EXPECT_THROW(loss({{}, {}, {top.ids, top.log_probs.slice(1, 1)}}), std::logic_error);
  EXPECT_THROW(loss({{}, {}, {top.ids.slice(0, 1), top.log_probs.slice(0, 1)}}), std::logic_error);
  EXPECT_THROW(loss({p.teacher_hidden, p.teacher_weight, top}), std::logic_error);
  EXPECT_THROW(top_probabilities(p.hidden, p.weight, 10), std::logic_error);
}

}  // namespace top_probabilities_test
}  // namespace molt::ops
