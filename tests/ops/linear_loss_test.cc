// Head and loss: chunked against whole, every mix of losses, tokens without weight, gradients against differences.
#include "ops/linear_loss/linear_loss.h"

#include "ops/busy_threads.h"
#include "ops/compare.h"
#include "ops/devices.h"
#include "ops/linear_loss/loss_memory.h"
#include "ops/loss_problem.h"

namespace molt::ops {
namespace linear_loss_test {

const std::vector<LossMix> kMixes{{.cross_entropy = 1},
                                  {.forward_kl = 1},
                                  {.reverse_kl = 1},
                                  {.cross_entropy = 0.3, .forward_kl = 0.5, .reverse_kl = 0.7},
                                  {.cross_entropy = 0.3, .forward_kl = 0.5, .reverse_kl = 0.7, .temperature = 2},
                                  {.reverse_kl = 1, .temperature = 0.5},
                                  {.jsd = 1},
                                  {.jsd = 1, .beta = 0.9, .temperature = 2},
                                  {.cross_entropy = 0.3, .forward_kl = 0.2, .reverse_kl = 0.7, .jsd = 0.5, .beta = 0.1},
                                  {.z = 1},
                                  {.cross_entropy = 1, .z = 0.2},
                                  {.cross_entropy = 0.3, .reverse_kl = 0.7, .z = 0.2},
                                  {.forward_kl = 0.5, .reverse_kl = 0.7, .z = 0.2, .temperature = 2}};

TestFunction loss_function(const LossProblem& p, const LossMix& mix, at::Device device, bool composite) {
  return [&p, mix, device, composite](const TestTensors& in) -> TestTensors {
    const TeacherHead teacher = p.head(in[0].options());
    const at::Tensor targets = p.targets.to(device), weights = p.loss_weights.to(device);
    const LossResult out = composite ? linear_loss_composite(in[0], in[1], targets, weights, mix, teacher)
                                     : linear_loss(in[0], in[1], targets, weights, mix, teacher);
    return loss_parts(out);
  };
}

TEST(LinearLoss, ChunksGiveWhatTheWholeGives) {
  for (const at::Device device : test_devices())
    for (const at::ScalarType dtype : {at::kFloat, at::kDouble})
      for (const auto& [tokens, vocabulary] : {std::pair(0, 16), {1, 16}, {9, 1}, {20, 13}, {300, 50}})
        for (const LossMix& mix : kMixes) {
          SCOPED_TRACE(testing::Message() << tokens << " tokens, vocabulary " << vocabulary);
          const LossProblem p = loss_problem(tokens, vocabulary);
          expect_same(loss_function(p, mix, device, false), loss_function(p, mix, at::kCPU, true), {p.hidden, p.weight}, device,
                      dtype, dtype == at::kFloat ? 5e-5 : 1e-10);
        }
}

TEST(LinearLoss, ChunksKeepWithinTheirMemory) {
  for (const bool teacher : {false, true})
    for (const bool gradient : {false, true})
      for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
        for (const std::int64_t tokens : {0, 1, 100, 8192, 70000})
          for (const std::int64_t vocabulary : {1, 32003, 131072, 262144}) {
            const LossChunks chunks = loss_chunks(tokens, vocabulary, teacher, gradient, dtype, at::Device(at::kCUDA, 0));
            EXPECT_LE(chunks.bytes, 1.5e9);
            EXPECT_LE(chunks.rows, tokens);
            std::int64_t rows = 0;
            for (const std::int64_t part : chunks.parts) rows += part;
            EXPECT_EQ(rows, chunks.rows);
            EXPECT_EQ(chunks.rows > 0, tokens > 0);
          }
}

// A part's logits overlap neither its own gradients nor those of the parts before it.
TEST(LinearLoss, LogitsLieBehindTheGradientsOfTheirChunk) {
  for (const std::int64_t vocabulary : {5, 131, 4096}) {
    LossChunks chunks{.rows = 7, .parts = {4, 2, 1}, .own_slope = true};
    chunks.bytes = 256.0 + 7 * (2 + 8) * static_cast<double>(vocabulary);
    const LossMemory memory(chunks, vocabulary, at::kFloat, at::kCPU);
    std::int64_t begin = 0;
    for (const std::int64_t part : chunks.parts) {
      const std::int64_t end = begin + part;
      const at::Tensor student = memory.logits(begin, end, false).fill_(1), teacher = memory.logits(begin, end, true).fill_(2);
      memory.slope().slice(0, begin, end).fill_(3);
      EXPECT_TRUE(student.eq(1).all().item<bool>());
      EXPECT_TRUE(teacher.eq(2).all().item<bool>());
      EXPECT_TRUE(memory.slope().slice(0, 0, end).eq(3).all().item<bool>());
      begin = end;
    }
  }
}

TEST(LinearLoss, SeveralChunksAddUp) {
  const std::int64_t vocabulary = 40000, tokens = 552;
  const LossChunks chunks = loss_chunks(tokens, vocabulary, /*teacher=*/true, /*gradient=*/true, at::kFloat, at::kCPU);
  ASSERT_LT(chunks.rows, tokens);
  ASSERT_LE(chunks.bytes, 100 << 20);
  const LossProblem p = loss_problem(tokens, vocabulary, 4);
  const LossMix mix{.cross_entropy = 0.5, .reverse_kl = 0.5};
  at::Tensor sum = at::zeros({}, at::kDouble), gradient = at::zeros({vocabulary, 4}, at::kDouble);
  for (std::int64_t begin = 0; begin < tokens; begin += 100) {
    const auto part = [&](const at::Tensor& x) { return x.slice(0, begin, std::min(tokens, begin + 100)); };
    const at::Tensor weight = p.weight.to(at::kFloat).requires_grad_(true);
    const LossResult out = linear_loss(part(p.hidden).to(at::kFloat), weight, part(p.targets), part(p.loss_weights), mix,
                                       {part(p.teacher_hidden).to(at::kFloat), p.teacher_weight.to(at::kFloat)});
    out.sum.backward();
    sum += out.sum.detach();
    gradient += weight.grad();
  }
  const at::Tensor weight = p.weight.to(at::kFloat).requires_grad_(true);
  const LossResult whole = linear_loss(p.hidden.to(at::kFloat), weight, p.targets, p.loss_weights, mix,
                                       {p.teacher_hidden.to(at::kFloat), p.teacher_weight.to(at::kFloat)});
  (whole.sum / 7).backward();
  EXPECT_LT(relative_error(whole.sum, sum), 1e-5);
  EXPECT_LT(relative_error(weight.grad() * 7, gradient), 1e-5);
}

// Rows long enough to be shared out on a GPU, of even and uneven length.
TEST(LinearLoss, LongRows) {
  for (const at::Device device : test_devices())
    for (const std::int64_t vocabulary : {5003, 16384, 40000, 40003, 131072})
      for (const LossMix& mix : {kMixes[0], kMixes[4]}) {
        SCOPED_TRACE(testing::Message() << "vocabulary " << vocabulary << ", temperature " << mix.temperature);
        const LossProblem p = loss_problem(9, vocabulary);
        expect_same(loss_function(p, mix, device, false), loss_function(p, mix, at::kCPU, true), {p.hidden, p.weight}, device,
                    at::kFloat, 1e-4);
      }
}

// Into the parameter's gradient during the call: what was there stays, in its own precision.
TEST(LinearLoss, AddsToTheGradientThatIsThere) {
  for (const at::Device device : test_devices())
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      const LossProblem p = loss_problem(40, 33);
      const LossMix mix{.cross_entropy = 1, .reverse_kl = 1};
      const at::Tensor hidden = p.hidden.to(device, dtype), targets = p.targets.to(device), weights = p.loss_weights.to(device);
      const TeacherHead teacher{p.teacher_hidden.to(device, dtype), p.teacher_weight.to(device, dtype)};
      const auto differentiated = [&](const at::Tensor& given, const LossOptions& options, const at::Tensor& states) {
        linear_loss(states, given, targets, weights, mix, teacher, options).sum.backward();
        return given.grad();
      };
      const auto leaf = [&](const at::Tensor& value) { return value.to(device, dtype).clone().requires_grad_(true); };
      const at::Tensor plain_hidden = leaf(hidden), added_hidden = leaf(hidden);
      const at::Tensor plain = differentiated(leaf(p.weight), {}, plain_hidden);
      at::Tensor weight = leaf(p.weight);
      weight.set_grad_dtype(at::kFloat);
      weight.mutable_grad() = at::full(weight.sizes(), 2, weight.options().dtype(at::kFloat).requires_grad(false));
      const void* const place = weight.grad().const_data_ptr();
      const at::Tensor added = differentiated(weight, {.add_weight_gradient = true}, added_hidden);
      EXPECT_EQ(added.const_data_ptr(), place);
      EXPECT_EQ(added.scalar_type(), at::kFloat);
      EXPECT_LT(relative_error(added - 2, plain), dtype == at::kFloat ? 1e-5 : 1e-2);
      EXPECT_TRUE(added_hidden.grad().equal(plain_hidden.grad()));
    }
}

TEST(LinearLoss, AnAddedGradientAllowsNoOtherSlopeThanOne) {
  const LossProblem p = loss_problem(8, 30);
  const at::Tensor hidden = p.hidden.clone().requires_grad_(true), weight = p.weight.clone().requires_grad_(true);
  EXPECT_THROW(linear_cross_entropy(hidden, weight, p.targets, {}, {.add_weight_gradient = true}), std::logic_error);
  weight.mutable_grad() = at::zeros_like(weight);
  (linear_cross_entropy(hidden, weight, p.targets, {}, {.add_weight_gradient = true}).sum / 2).backward();
  EXPECT_FALSE(hidden.grad().isfinite().all().item<bool>());
}

TEST(LinearLoss, TokensMayBeGiven) {
  for (const at::Device device : test_devices()) {
    const LossProblem p = loss_problem(30, 20);
    const at::Tensor hidden = p.hidden.to(device), weight = p.weight.to(device);
    const at::Tensor targets = p.targets.to(device), weights = p.loss_weights.to(device);
    const at::Tensor tokens = (weights.ne(0).logical_and(targets.ne(ignored_target))).nonzero().squeeze(1);
    const LossResult found = linear_cross_entropy(hidden, weight, targets, weights);
    const LossResult given = linear_cross_entropy(hidden, weight, targets, weights, {.tokens = tokens});
    EXPECT_TRUE(given.sum.equal(found.sum));
    EXPECT_TRUE(given.cross_entropy.equal(found.cross_entropy));
    EXPECT_EQ(given.tokens, found.tokens);
  }
}

TEST(LinearLoss, GradientsAreThoseOfDifferences) {
  const LossProblem p = loss_problem(6, 5, 3);
  for (const LossMix& mix : kMixes)
    expect_gradients_of_differences(
        [f = loss_function(p, mix, at::kCPU, false)](const TestTensors& in) -> TestTensors { return {f(in)[0]}; },
        {p.hidden, p.weight});
}

// Rows that carry no loss are poisoned: one multiplication with them would show.
TEST(LinearLoss, TokensWithoutWeightCostNothing) {
  for (const at::Device device : test_devices()) {
    LossProblem p = loss_problem(30, 20);
    std::int64_t expected = 0;
    for (std::int64_t i = 0; i < 30; ++i) {
      const bool kept = p.loss_weights[i].item<float>() != 0 && p.targets[i].item<std::int64_t>() != ignored_target;
      expected += kept;
      if (kept) continue;
      p.hidden[i].fill_(NAN);
      p.teacher_hidden[i].fill_(NAN);
    }
    const at::Tensor hidden = p.hidden.to(device, at::kFloat).requires_grad_(true);
    const at::Tensor weight = p.weight.to(device, at::kFloat).requires_grad_(true);
    const LossResult out = linear_loss(hidden, weight, p.targets.to(device), p.loss_weights.to(device), {.reverse_kl = 1},
                                       {p.teacher_hidden.to(device, at::kFloat), p.teacher_weight.to(device, at::kFloat)});
    out.sum.backward();
    EXPECT_EQ(out.tokens, expected);
    EXPECT_LT(expected, 30);
    EXPECT_TRUE(out.sum.isfinite().item<bool>());
    EXPECT_TRUE(weight.grad().isfinite().all().item<bool>());
    EXPECT_TRUE(hidden.grad().isfinite().all().item<bool>());
    EXPECT_EQ(hidden.grad().abs().sum(1).ne(0).sum().item<std::int64_t>(), expected);
    EXPECT_TRUE(out.reverse_kl.isfinite().all().item<bool>());
  }
}

TEST(LinearLoss, AStudentLikeItsTeacherHasNoDivergence) {
  const LossProblem p = loss_problem(8, 30);
  const at::Tensor hidden = p.hidden.to(at::kFloat), weight = p.weight.to(at::kFloat).requires_grad_(true);
  const LossResult out =
      linear_loss(hidden, weight, {}, {}, {.forward_kl = 1, .reverse_kl = 1, .jsd = 1}, {hidden, weight.detach()});
  out.sum.backward();
  EXPECT_EQ(out.tokens, 8);
  EXPECT_LT(std::abs(out.sum.item<double>()), 1e-5);
  EXPECT_LT(weight.grad().abs().max().item<double>(), 1e-5);
  EXPECT_FALSE(out.cross_entropy.defined());
}

TEST(LinearLoss, TheMixtureTendsToEitherDivergence) {
  for (const at::Device device : test_devices()) {
    const LossProblem p = loss_problem(8, 30);
    const auto losses = [&](double beta) {
      const auto on = [&](const at::Tensor& tensor) { return tensor.to(device, at::kDouble) * 0.3; };
      return linear_loss(on(p.hidden), on(p.weight), {}, {}, {.forward_kl = 1, .reverse_kl = 1, .jsd = 1, .beta = beta},
                         {on(p.teacher_hidden), on(p.teacher_weight)});
    };
    const LossResult low = losses(1e-5), high = losses(1 - 1e-5), middle = losses(0.5);
    EXPECT_TRUE(at::allclose(low.jsd / 1e-5, low.forward_kl, 1e-3)) << device;
    EXPECT_TRUE(at::allclose(high.jsd / 1e-5, high.reverse_kl, 1e-3)) << device;
    EXPECT_TRUE(middle.jsd.gt(0).logical_and(middle.jsd.lt(std::log(2))).all().item<bool>()) << device;
  }
}

TEST(LinearLoss, FrozenHeadAndFrozenHiddenGetNoGradient) {
  const LossProblem p = loss_problem(8, 30);
  const at::Tensor hidden = p.hidden.clone().requires_grad_(true), weight = p.weight.clone().requires_grad_(true);
  linear_cross_entropy(hidden, p.weight, p.targets).sum.backward();
  EXPECT_TRUE(hidden.grad().defined());
  linear_cross_entropy(p.hidden, weight, p.targets).sum.backward();
  EXPECT_TRUE(weight.grad().defined());
  EXPECT_FALSE(linear_cross_entropy(p.hidden, p.weight, p.targets).sum.requires_grad());
}

TEST(LinearLoss, HalfPrecisionIsClose) {
  for (const at::Device device : test_devices()) {
    const LossProblem p = loss_problem(40, 33);
    const LossMix mix{.cross_entropy = 1, .reverse_kl = 1};
    expect_same(loss_function(p, mix, device, false), loss_function(p, mix, at::kCPU, true), {p.hidden, p.weight}, device,
                at::kBFloat16, 5e-2);
  }
}

// bf16 in and gradients of logits rounded to bf16: nothing else is lost against fp32 throughout.
TEST(LinearLoss, HalfPrecisionOfALongRowIsClose) {
  for (const at::Device device : test_devices()) {
    if (device.is_cpu()) continue;
    const std::int64_t tokens = 700, vocabulary = 32768, hidden = 256;
    const auto values = [&](at::IntArrayRef sizes, double scale) {
      return (at::randn(sizes, at::TensorOptions(device)) * scale).to(at::kBFloat16);
    };
    const at::Tensor states = values({tokens, hidden}, 1), head = values({vocabulary, hidden}, 0.1);
    const TeacherHead teacher{states + values({tokens, hidden}, 0.1), head + values({vocabulary, hidden}, 0.01)};
    const at::Tensor targets = at::randint(vocabulary, {tokens}, at::TensorOptions(device).dtype(at::kLong));
    const LossMix mix{.cross_entropy = 0.1, .reverse_kl = 1};
    const auto run = [&](at::ScalarType dtype) {
      at::Tensor h = states.detach().to(dtype), w = head.detach().to(dtype);
      for (at::Tensor* leaf : {&h, &w}) *leaf = leaf->clone().requires_grad_(true);
      w.set_grad_dtype(at::kFloat);
      const LossResult out = linear_loss(h, w, targets, {}, mix, {teacher.hidden.to(dtype), teacher.weight.to(dtype)});
      out.sum.backward();
      return TestTensors{h.grad(), w.grad(), out.cross_entropy, out.reverse_kl};
    };
    const auto distance = [](const at::Tensor& found, const at::Tensor& expected) {
      return ((found.to(at::kFloat) - expected.to(at::kFloat)).norm() / expected.to(at::kFloat).norm()).item<double>();
    };
    const TestTensors narrow = run(at::kBFloat16), wide = run(at::kFloat);
    EXPECT_LT(distance(narrow[0], wide[0]), 5e-3);
    EXPECT_LT(distance(narrow[1], wide[1]), 5e-3);
    EXPECT_LT(distance(narrow[2], wide[2]), 1e-5);
    EXPECT_LT(distance(narrow[3], wide[3]), 1e-4);
  }
}

TEST(LinearLoss, ATargetOutsideTheVocabularyIsNotANumberOnAGpu) {
  for (const at::Device device : test_devices()) {
    if (device.is_cpu()) continue;
    const at::Tensor targets = at::tensor({1, 4, -1}, at::kLong).to(device);
    const at::Tensor loss = linear_cross_entropy(at::ones({3, 2}, device), at::ones({4, 2}, device), targets).cross_entropy;
    EXPECT_TRUE(loss.isfinite().to(at::kLong).cpu().equal(at::tensor({1, 0, 0}, at::kLong)));
  }
}

TEST(LinearLoss, RefusesATargetOutsideTheVocabulary) {
  EXPECT_THROW(linear_cross_entropy(at::ones({1, 2}), at::ones({4, 2}), at::tensor({4}, at::kLong)), std::logic_error);
  EXPECT_THROW(linear_loss(at::ones({1, 2}), at::ones({4, 2}), {}, {}, {.cross_entropy = 1}), std::logic_error);
}

TEST(LogProbs, AreThoseOfTheTargets) {
  const LossProblem p = loss_problem(300, 17);
  const at::Tensor all = p.hidden.matmul(p.weight.t()).log_softmax(1);
  const at::Tensor chosen = all.gather(1, p.targets.clamp_min(0).unsqueeze(1)).squeeze(1) * p.targets.ne(ignored_target);
  const at::Tensor found = log_probs(p.hidden.to(at::kFloat), p.weight.to(at::kFloat).requires_grad_(true), p.targets);
  EXPECT_LT(relative_error(found, chosen), 1e-5);
  EXPECT_FALSE(found.requires_grad());
}

TEST(LinearLoss, UsesAllThreads) {
  const at::Tensor hidden = at::randn({1024, 8}), weight = at::randn({4000, 8}), targets = at::zeros({1024}, at::kLong);
  const int threads = few_threads();
  EXPECT_EQ(busy_threads([&] {
              for (int i = 0; i < 5; ++i) linear_cross_entropy(hidden, weight, targets);
            }),
            threads);
}

}  // namespace linear_loss_test
}  // namespace molt::ops
