// Rotary embedding: against the composite form and a plain evaluation, splitting a projection, inverse, partial rotation.
#include "ops/rotary/rotary.h"

#include "ops/busy_threads.h"
#include "ops/compare.h"
#include "ops/devices.h"

namespace molt::ops {
namespace rotary_test {

RotaryTable table_for(std::int64_t tokens, std::int64_t rotary, at::Device device = at::kCPU, double factor = 1) {
  return rotary_table({rotary_frequencies(rotary, 10000, device), factor}, at::arange(tokens, at::kLong).to(device) * 7);
}

TEST(Rotary, FrequenciesFallGeometrically) {
  const at::Tensor frequencies = rotary_frequencies(8, 10000);
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(frequencies[i].item<float>(), std::pow(10000.0, -i / 4.0), 1e-7);
}

TEST(Rotary, TableHoldsCosinesAndSinesTimesTheFactor) {
  for (const at::Device device : test_devices())
    for (const at::ScalarType dtype : {at::kLong, at::kInt}) {
      const at::Tensor positions = at::tensor({0, 3, 1000, 131071}).to(device, dtype);
      const RotaryTable table = rotary_table({at::tensor({1.0f, 0.01f}).to(device), 1.5}, positions);
      for (const auto& [row, position] : {std::pair(0, 0), {1, 3}, {2, 1000}, {3, 131071}}) {
        EXPECT_NEAR(table.cos[row][1].item<float>(), 1.5 * std::cos(position * 0.01f), 2e-6);
        EXPECT_NEAR(table.sin[row][0].item<float>(), 1.5 * std::sin(position), 2e-6);
      }
    }
}

TEST(Rotary, TurnsPairsOfTheTwoHalves) {
  const RotaryTable table = rotary_table({at::tensor({0.5f, 0.25f}), 1}, at::tensor({2}));
  const at::Tensor x = at::tensor({1.0f, 2.0f, 3.0f, 4.0f, 9.0f}).view({1, 1, 5});
  const at::Tensor expected = at::tensor({std::cos(1.0) - 3 * std::sin(1.0), 2 * std::cos(0.5) - 4 * std::sin(0.5),
                                          3 * std::cos(1.0) + std::sin(1.0), 4 * std::cos(0.5) + 2 * std::sin(0.5), 9.0})
                                  .view({1, 1, 5});
  EXPECT_LT(relative_error(rotary(x, table), expected), 1e-6);
}

TEST(Rotary, EqualsItsFormula) {
  for (const at::Device device : test_devices())
    for (const at::ScalarType dtype : {at::kFloat, at::kDouble, at::kBFloat16})
      for (const auto& [tokens, heads, head_size, part] : std::vector<std::array<int, 4>>{
               {0, 2, 8, 8}, {1, 1, 2, 2}, {5, 3, 8, 8}, {40, 4, 32, 32}, {9, 2, 20, 12}, {3, 70, 64, 32}, {2, 5, 600, 600}}) {
        const RotaryTable here = table_for(tokens, part, device, 1.25), reference = table_for(tokens, part, at::kCPU, 1.25);
        expect_same([&](const TestTensors& in) -> TestTensors { return {rotary(in[0], here)}; },
                    [&](const TestTensors& in) -> TestTensors { return {rotary_composite(in[0], reference)}; },
                    {test_normal({tokens, heads, head_size}, 1, dtype)}, device, dtype,
                    dtype == at::kBFloat16                    ? 2e-2
                    : dtype == at::kFloat || device.is_cuda() ? 1e-5
                                                              : 1e-12);
      }
}

// Rows of a projection that begin at `first` of a wider tensor.
void expect_split(at::Device device, at::ScalarType dtype, std::int64_t head_size, std::int64_t first, bool turns) {
  SCOPED_TRACE(::testing::Message() << device << " " << dtype << ", head size " << head_size << ", from column " << first);
  const std::int64_t tokens = 11, heads = 6, kv_heads = 2, columns = (heads + 2 * kv_heads) * head_size;
  const RotaryTable table = turns ? table_for(tokens, head_size) : RotaryTable{};
  const RotaryTable here = turns ? table_for(tokens, head_size, device) : RotaryTable{};
  const auto split = [&](const TestTensors& in) -> TestTensors {
    const QueryKeyValue out = rotary_qkv(in[0].narrow(1, first, columns), heads, kv_heads, here);
    return {out.q, out.k, out.v};
  };
  const auto reference = [&](const TestTensors& in) -> TestTensors {
    const auto part = [&](std::int64_t begin, std::int64_t count) {
      return in[0].narrow(1, first + begin * head_size, count * head_size).reshape({tokens, count, head_size});
    };
    const at::Tensor q = part(0, heads), k = part(heads, kv_heads), v = part(heads + kv_heads, kv_heads);
    return {turns ? rotary_composite(q, table) : q, turns ? rotary_composite(k, table) : k, v};
  };
  expect_same(split, reference, {test_normal({tokens, columns + 16}, 1, dtype)}, device, dtype,
              dtype == at::kFloat ? 1e-5 : 2e-2);
}

TEST(Rotary, SplitsAProjectionAndTurnsQueriesAndKeys) {
  for (const at::Device device : test_devices())
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
      for (const bool turns : {true, false})
        for (const auto& [head_size, first] : {std::pair(12, 3), {64, 8}, {64, 3}, {22, 0}}) {
          if (device.is_cpu() && dtype == at::kBFloat16 && first == 3) continue;  // LibTorch's views, which strides may forbid
          expect_split(device, dtype, head_size, first, turns);
        }
}

// As attention may give them: heads before tokens in memory, and an even number of values between two tokens.
TEST(Rotary, TakesGradientsInAnyLayout) {
  for (const at::Device device : test_devices())
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      const RotaryTable here = table_for(9, 16, device), table = table_for(9, 16);
      const auto turned = [&](const TestTensors& in) -> TestTensors {
        return {rotary(in[0], here).transpose(0, 1).contiguous()};
      };
      const auto reference = [&](const TestTensors& in) -> TestTensors {
        return {rotary_composite(in[0], table).transpose(0, 1).contiguous()};
      };
      expect_same(turned, reference, {test_normal({9, 4, 16}, 1, dtype)}, device, dtype, dtype == at::kFloat ? 1e-5 : 2e-2);
    }
}

TEST(Rotary, GradientReachesTheProjectionFromOnePartAlone) {
  for (const at::Device device : test_devices()) {
    const at::Tensor qkv = test_normal({3, 4 * 4}, 1).to(device, at::kFloat).requires_grad_(true);
    rotary_qkv(qkv, 2, 1, table_for(3, 4, device)).k.sum().backward();
    EXPECT_EQ(qkv.grad().slice(1, 0, 8).abs().max().item<float>(), 0);
    EXPECT_GT(qkv.grad().slice(1, 8, 12).abs().min().item<float>(), 0);
    EXPECT_EQ(qkv.grad().slice(1, 12, 16).abs().max().item<float>(), 0);
  }
}

TEST(Rotary, DotProductsDependOnDistanceAlone) {
  const at::Tensor q = test_normal({1, 1, 16}, 1).expand({50, 1, 16}), k = test_normal({1, 1, 16}, 2).expand({50, 1, 16});
  const RotaryTable table = table_for(50, 16);
  const at::Tensor a = rotary(q, table), b = rotary(k, table);
  const at::Tensor near = (a.slice(0, 5, 50) * b.slice(0, 0, 45)).sum(2);
  EXPECT_LT((near - near[0]).abs().max().item<double>(), 1e-4);
}

TEST(Rotary, GradientsAreThoseOfDifferences) {
  const RotaryTable table = table_for(3, 6);
  expect_gradients_of_differences([&](const TestTensors& in) -> TestTensors { return {rotary(in[0], table)}; },
                                  {test_normal({3, 2, 8}, 1)});
}

TEST(Rotary, UsesAllThreads) {
  const at::Tensor qkv = at::randn({4096, 256});
  const RotaryTable table = table_for(4096, 32);
  // The work is too short to keep every thread of a large machine busy.
  const int threads = few_threads();
  EXPECT_GE(busy_threads([&] {
              for (int i = 0; i < 60; ++i) rotary_qkv(qkv, 4, 2, table);
            }),
            std::min(2, threads));
}

}  // namespace rotary_test
}  // namespace molt::ops
