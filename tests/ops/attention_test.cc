// Attention on packs: against the composite form and differences, windows, odd shapes, packed against separate, threads.
#include "ops/attention/attention.h"

#include <ATen/Context.h>

#include <numeric>

#include "ops/busy_threads.h"
#include "ops/compare.h"
#include "ops/devices.h"

namespace molt::ops {
namespace attention_test {

using Window = std::optional<std::int64_t>;

struct Shape {
  std::int64_t heads, kv_heads, head_size;
};

TestTensors random_qkv(std::int64_t tokens, const Shape& shape, std::uint64_t seed = 1) {
  return {test_normal({tokens, shape.heads, shape.head_size}, seed),
          test_normal({tokens, shape.kv_heads, shape.head_size}, seed + 1),
          test_normal({tokens, shape.kv_heads, shape.head_size}, seed + 2)};
}

void expect_formula(const std::vector<std::int32_t>& lengths, const Shape& shape, Window window, at::Device device,
                    at::ScalarType dtype) {
  SCOPED_TRACE(testing::Message() << "heads " << shape.heads << "/" << shape.kv_heads << " of " << shape.head_size << ", window "
                                  << window.value_or(0) << ", " << lengths.size() << " sequences");
  const double scale = 1 / std::sqrt(shape.head_size);
  const Sequences here = Sequences::of(lengths, device), reference = Sequences::of(lengths);
  const double tolerance = dtype == at::kDouble ? 1e-11 : dtype == at::kBFloat16 ? 3e-2 : device.is_cuda() ? 2e-4 : 2e-5;
  expect_same(
      [&](const TestTensors& in) -> TestTensors { return {attention(in[0], in[1], in[2], here, scale, window)}; },
      [&](const TestTensors& in) -> TestTensors { return {attention_composite(in[0], in[1], in[2], reference, scale, window)}; },
      random_qkv(reference.tokens(), shape), device, dtype, tolerance);
}

TEST(Attention, EqualsItsFormula) {
  const std::vector<std::int32_t> uneven{5, 1, 0, 17, 100, 33}, border{128, 129, 6, 7, 300};
  for (const at::Device device : test_devices())
    for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
      for (const Shape& shape : {Shape{2, 2, 8}, {4, 2, 32}, {3, 1, 12}, {2, 1, 64}, {1, 1, 5}, {2, 2, 128}})
        expect_formula(uneven, shape, std::nullopt, device, dtype);
      expect_formula(border, {4, 2, 16}, std::nullopt, device, dtype);
      expect_formula({}, {2, 1, 8}, std::nullopt, device, dtype);
      expect_formula({0, 0}, {2, 1, 8}, std::nullopt, device, dtype);
    }
}

TEST(Attention, SlidingWindowsEqualTheirFormula) {
  for (const at::Device device : test_devices())
    for (const at::ScalarType dtype : {at::kFloat, at::kDouble})
      for (const int window : {1, 2, 7, 16, 127, 129, 1000}) expect_formula({5, 1, 30, 260}, {2, 1, 8}, window, device, dtype);
}

TEST(Attention, HalfPrecisionIsCloseToItsFormula) {
  for (const at::Device device : test_devices())
    for (const Window window : {Window(), Window(20)})
      expect_formula({5, 1, 100, 140}, {4, 2, 32}, window, device, at::kBFloat16);
}

// Packs that share bounds of their lengths and of their number, one after another: on the GPU they share plans.
TEST(Attention, HalfPrecisionPacksOfChangingLengthsAreCloseToTheirFormula) {
  for (const at::Device device : test_devices())
    for (const Shape& shape : {Shape{4, 1, 128}, {6, 2, 64}, {2, 2, 80}})
      for (const Window window : {Window(), Window(1), Window(100)})
        for (const std::vector<std::int32_t>& lengths :
             {std::vector<std::int32_t>{300, 1, 0, 129, 64}, {10, 257, 31, 1, 100, 2}, {257}, {128, 128}, {1, 1, 1}})
          expect_formula(lengths, shape, window, device, at::kBFloat16);
}

TEST(Attention, GradientsAreTheSameBitForBitWhereThatIsAskedFor) {
  const Sequences lengths = Sequences::of({700, 70, 278});
  const TestTensors in = random_qkv(lengths.tokens(), {2, 1, 128});
  at::globalContext().setDeterministicAlgorithms(true, false);
  for (const at::Device device : test_devices()) {
    const Sequences sequences = Sequences::of({700, 70, 278}, device);
    const auto operation = [&](const TestTensors& x) -> TestTensors { return {attention(x[0], x[1], x[2], sequences, 0.1)}; };
    for (const at::ScalarType dtype : {at::kBFloat16, at::kFloat}) {
      const Differentiated first = differentiate(operation, in, device, dtype);
      const Differentiated second = differentiate(operation, in, device, dtype);
      for (int i = 0; i < 3; ++i)
        EXPECT_TRUE(first.gradients[i].equal(second.gradients[i])) << i << ", " << dtype << " " << device;
    }
  }
  at::globalContext().setDeterministicAlgorithms(false, false);
}

TEST(Attention, AWindowOfOneSeesOnlyItself) {
  const TestTensors in = random_qkv(9, {4, 2, 8});
  const at::Tensor found = attention(in[0], in[1], in[2], Sequences::of({4, 5}), 0.3, 1);
  EXPECT_LT(relative_error(found, in[2].repeat_interleave(2, 1)), 1e-12);
}

TEST(Attention, AWindowLeavesOutWhatLiesFurtherBack) {
  TestTensors in = random_qkv(10, {1, 1, 8});
  const Sequences sequences = Sequences::of({10});
  const at::Tensor before = attention(in[0], in[1], in[2], sequences, 0.3, 4);
  in[1][2].fill_(50);
  in[2][2].fill_(50);
  const at::Tensor changed = (attention(in[0], in[1], in[2], sequences, 0.3, 4) - before).abs().amax({1, 2}).gt(0);
  for (int token = 0; token < 10; ++token) EXPECT_EQ(changed[token].item<bool>(), token >= 2 && token <= 5) << token;
}

TEST(Attention, GradientsAreThoseOfDifferences) {
  const Sequences sequences = Sequences::of({4, 1, 7});
  for (const Window window : {Window(), Window(3)})
    expect_gradients_of_differences(
        [&](const TestTensors& in) -> TestTensors { return {attention(in[0], in[1], in[2], sequences, 0.4, window)}; },
        random_qkv(12, {4, 2, 3}));
}

TEST(Attention, APackEqualsItsSequencesAlone) {
  const std::vector<std::int32_t> lengths{40, 3, 200, 129};
  const Sequences packed = Sequences::of(lengths);
  const TestTensors in = random_qkv(packed.tokens(), {4, 2, 16});
  const at::Tensor q = in[0].to(at::kFloat), k = in[1].to(at::kFloat), v = in[2].to(at::kFloat);
  const at::Tensor together = attention(q, k, v, packed, 0.25);
  for (std::int64_t i = 0; i < packed.count(); ++i) {
    const auto own = [&](const at::Tensor& x) { return x.slice(0, packed.offsets[i], packed.offsets[i + 1]); };
    EXPECT_TRUE(attention(own(q), own(k), own(v), Sequences::of({lengths[i]}), 0.25).equal(own(together))) << i;
  }
}

TEST(Attention, ReadsPartsOfAProjectionInPlace) {
  const auto parts = [&](const at::Tensor& qkv) -> TestTensors {
    const at::Tensor heads = qkv.view({42, 8, 16});
    return {heads.slice(1, 0, 4), heads.slice(1, 4, 6), heads.slice(1, 6, 8)};
  };
  for (const at::Device device : test_devices())
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      const Sequences sequences = Sequences::of({12, 30}, device), reference = Sequences::of({12, 30});
      expect_same(
          [&](const TestTensors& in) -> TestTensors {
            const TestTensors p = parts(in[0]);
            return {attention(p[0], p[1], p[2], sequences, 0.25)};
          },
          [&](const TestTensors& in) -> TestTensors {
            const TestTensors p = parts(in[0]);
            return {attention_composite(p[0].contiguous(), p[1].contiguous(), p[2].contiguous(), reference, 0.25)};
          },
          {test_normal({42, 128}, 1)}, device, dtype,
          dtype == at::kBFloat16 ? 3e-2
          : device.is_cuda()     ? 2e-4
                                 : 2e-5);
    }
}

TEST(Attention, LargeScoresStayFinite) {
  TestTensors in = random_qkv(200, {2, 1, 8});
  const Sequences sequences = Sequences::of({200});
  const at::Tensor found = attention(in[0].to(at::kFloat) * 300, in[1].to(at::kFloat) * 300, in[2].to(at::kFloat), sequences, 1);
  EXPECT_LT(relative_error(found, attention_composite(in[0] * 300, in[1] * 300, in[2], sequences, 1)), 1e-3);
}

TEST(Attention, NotANumberReachesTheResult) {
  TestTensors in = random_qkv(6, {1, 1, 8});
  in[1][2][0][3] = NAN;
  const at::Tensor found = attention(in[0].to(at::kFloat), in[1].to(at::kFloat), in[2].to(at::kFloat), Sequences::of({6}), 1);
  EXPECT_FALSE(found.slice(0, 0, 2).isnan().any().item<bool>());
  EXPECT_TRUE(found.slice(0, 2, 6).isnan().all().item<bool>());
}

TEST(Attention, UsesAllThreads) {
  const std::vector<std::int32_t> lengths(20, 100);
  const Sequences sequences = Sequences::of(lengths);
  TestTensors in;
  for (const at::Tensor& x : random_qkv(2000, {4, 2, 32})) in.push_back(x.to(at::kFloat).requires_grad_(true));
  const int threads = few_threads();
  EXPECT_EQ(busy_threads([&] {
              for (int i = 0; i < 20; ++i) attention(in[0], in[1], in[2], sequences, 0.2).sum().backward();
            }),
            threads);
}

TEST(Attention, RefusesWrongShapes) {
  const TestTensors in = random_qkv(6, {4, 2, 8});
  EXPECT_THROW(attention(in[0], in[1], in[2], Sequences::of({5}), 1), std::logic_error);
  EXPECT_THROW(attention(in[0].slice(1, 0, 3), in[1], in[2], Sequences::of({6}), 1), std::logic_error);
  EXPECT_THROW(attention(in[0], in[1], in[2], Sequences::of({6}), 1, 0), std::logic_error);
}

}  // namespace attention_test
}  // namespace molt::ops
