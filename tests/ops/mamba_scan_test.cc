// The inside of a Mamba layer as one operation against its parts in plain tensor operations, gradients too.
#include "ops/mamba_scan/mamba_scan.h"

#include "ops/compare.h"
#include "ops/devices.h"

namespace molt::ops {
namespace mamba_scan_test {

struct Case {
  std::vector<std::int32_t> lengths;
  std::int64_t d_inner, d_xb, state;
  bool conv_repeated = true, optional = true;  // optional: with biases and D
};

const std::vector<Case> kCases = {
    {{7}, 64, 16, 16},
    {{1, 70, 0, 129}, 64, 32, 16, false},
    {{63, 65}, 256, 64, 16},
    {{40}, 96, 16, 16},  // more groups to a row of B than a block of a GPU has
    {{20, 3}, 32, 32, 16, true, false},
    {{2, 1, 3, 0, 4, 33, 3}, 64, 16, 16},  // sequences that the taps reach beyond
    {{700, 5}, 64, 16, 16, true, false},   // cut into spans on a GPU
    {{66}, 30, 10, 5},                     // no part begins where vectors do
    {{5, 20}, 48, 24, 24, false, false},
    {{}, 32, 16, 16},
};

// zxBC, dt, A_log, the taps, and what is optional.
TestTensors inputs_of(const Case& c) {
  const std::int64_t tokens = Sequences::of(c.lengths).tokens(), channels = c.conv_repeated ? c.d_inner : c.d_xb;
  TestTensors inputs{
      test_normal({tokens, 2 * c.d_inner + 2 * c.d_xb}, 1, at::kBFloat16), test_normal({tokens, c.d_inner}, 2, at::kBFloat16),
      test_normal({c.d_inner, c.state}, 3, at::kBFloat16) * 0.5, test_normal({channels, 4}, 4, at::kBFloat16) * 0.5};
  if (!c.optional) return inputs;
  inputs.push_back(test_normal({channels}, 5, at::kBFloat16));
  inputs.push_back(test_normal({c.d_inner}, 6, at::kBFloat16) - 1);
  inputs.push_back(test_normal({c.d_inner}, 7, at::kBFloat16));
  return inputs;
}

struct Parts {
  ConvInput conv;
  ScanInput scan;

  Parts(const Case& c, const TestTensors& in) {
    conv.weight = in[3], conv.repeat = c.conv_repeated ? c.d_inner / c.d_xb : 1, conv.group_size = c.state;
    scan.dt = in[1], scan.A_log = in[2];
    if (c.optional) conv.bias = in[4], scan.dt_bias = in[5], scan.D = in[6];
  }
};

TestFunction operation(const Case& c, at::Device device) {
  return [&c, device](const TestTensors& in) -> TestTensors {
    const Parts parts(c, in);
    return {mamba_scan(in[0], parts.conv, parts.scan, Sequences::of(c.lengths, device))};
  };
}

TestTensors composite(const Case& c, const TestTensors& in) {
  const Sequences sequences = Sequences::of(c.lengths);
  Parts parts(c, in);
  set_parts(in[0], parts.conv, parts.scan);
  parts.scan.x = causal_conv_composite(parts.conv, sequences);
  return {selective_scan_composite(parts.scan, sequences).y};
}

TEST(MambaScan, IsConvolutionAndScanOfTheParts) {
  for (const at::Device device : test_devices())
    for (const Case& c : kCases) {
      SCOPED_TRACE(testing::Message() << c.d_inner << "/" << c.d_xb << " channels of " << c.state << ", sequences "
                                      << c.lengths.size());
      const TestFunction reference = [&](const TestTensors& in) { return composite(c, in); };
      expect_same(operation(c, device), reference, inputs_of(c), device, at::kFloat, 1e-5);
      expect_same(operation(c, device), reference, inputs_of(c), device, at::kBFloat16, 3e-2);
      expect_same(operation(c, device), reference, inputs_of(c), device, at::kDouble, 1e-12);
    }
}

// What is kept for the backward pass changes nothing.
TEST(MambaScan, GivesTheSameWithoutRecording) {
  for (const at::Device device : test_devices())
    for (const Case& c : kCases)
      for (const auto type : {at::kFloat, at::kBFloat16}) {
        TestTensors in = inputs_of(c);
        for (at::Tensor& tensor : in) tensor = tensor.to(device, type);
        const at::Tensor alone = operation(c, device)(in)[0];
        in[0].requires_grad_();
        EXPECT_TRUE(alone.equal(operation(c, device)(in)[0])) << c.d_inner << "/" << c.d_xb << " channels of " << c.state;
      }
}

// zxBC's type is that of the rows; the parameters are of types of their own.
Differentiated with_types(const Case& c, at::Device device, const std::vector<at::ScalarType>& types) {
  const TestFunction typed = [&](const TestTensors& in) {
    TestTensors own = in;
    for (std::size_t i = 0; i < own.size(); ++i) own[i] = in[i].to(types[i]);
    return operation(c, device)(own);
  };
  TestTensors inputs = inputs_of(c);
  for (at::Tensor& input : inputs) input = input.to(at::kBFloat16);
  return differentiate(typed, inputs, device, at::kFloat);
}

// All inputs are numbers that bfloat16 has: nothing but a parameter's gradient depends on its type, and that is rounded once.
TEST(MambaScan, TakesParametersOfAnyType) {
  constexpr auto narrow = at::kBFloat16, wide = at::kFloat;
  for (const at::Device device : test_devices())
    for (const std::int64_t state : {16, 8}) {
      const Case c{{700, 3}, 64, 16, state};
      const Differentiated expected = with_types(c, device, {narrow, narrow, wide, wide, wide, wide, wide});
      const std::vector<std::vector<at::ScalarType>> mixtures = {{narrow, narrow, wide, narrow, narrow, wide, wide},
                                                                 {narrow, narrow, wide, narrow, wide, narrow, wide},
                                                                 {narrow, narrow, narrow, wide, narrow, wide, narrow}};
      for (const auto& types : mixtures) {
        const Differentiated found = with_types(c, device, types);
        EXPECT_TRUE(found.outputs[0].equal(expected.outputs[0])) << device;
        for (std::size_t i = 0; i < types.size(); ++i)
          EXPECT_TRUE(found.gradients[i].equal(expected.gradients[i].to(types[i]).to(wide)))
              << "gradient " << i << ", state " << state << " on " << device;
      }
    }
}

TEST(MambaScan, GradientsAreTheSameEveryTime) {
  for (const at::Device device : test_devices()) {
    const Case c{{1500, 3}, 256, 64, 16};
    const Differentiated first = differentiate(operation(c, device), inputs_of(c), device, at::kBFloat16);
    for (int i = 0; i < 3; ++i) {
      const Differentiated again = differentiate(operation(c, device), inputs_of(c), device, at::kBFloat16);
      for (std::size_t k = 0; k < first.gradients.size(); ++k)
        EXPECT_TRUE(again.gradients[k].equal(first.gradients[k])) << "gradient " << k << " on " << device;
    }
  }
}

TEST(MambaScan, BeginsFromZeros) {
  const Case& c = kCases[0];
  const TestTensors in = inputs_of(c);
  Parts parts(c, in);
  parts.scan.initial_state = at::zeros({1, c.d_inner, c.state}, at::kDouble);
  EXPECT_THROW(mamba_scan(in[0], parts.conv, parts.scan, Sequences::of(c.lengths)), std::logic_error);
}

}  // namespace mamba_scan_test
}  // namespace molt::ops
