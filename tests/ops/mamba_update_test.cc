// One-token updates of a Mamba layer against the convolution and the scan over the whole sequence, and what slots may hold.
#include "ops/mamba_update/mamba_update.h"

#include "ops/compare.h"
#include "ops/devices.h"

namespace molt::ops {
namespace mamba_update_test {

struct Case {
  std::int64_t d_inner, d_xb, state, width, rank;
  bool conv_repeated = true, bias = true;
};

// A layer's parameters and the projections of `tokens` tokens of each of n sequences, (n, tokens, …), as parts of one product.
struct Layer {
  Layer(const Case& its_case, std::int64_t n, std::int64_t tokens, at::TensorOptions options) : c(its_case) {
    const auto make = [&](at::IntArrayRef shape, std::uint64_t seed) { return test_normal(shape, seed).to(options); };
    zxBC = make({n, tokens, 2 * c.d_inner + 2 * c.d_xb}, 1);
    low = make({n, tokens, c.rank}, 2);
    dt_weight = make({c.d_inner, c.rank}, 3) * 0.3;
    conv.weight = make({c.conv_repeated ? c.d_inner : c.d_xb, c.width}, 4) * 0.5;
    if (c.bias) conv.bias = make({conv.weight.size(0)}, 5);
    conv.repeat = conv.weight.size(0) / c.d_xb;
    conv.group_size = c.state;
    scan.dt_bias = make({c.d_inner}, 6) - 2;
    const at::TensorOptions wide = options.dtype(at::kFloat);
    scan.A_log = test_normal({c.d_inner, c.state}, 7).to(wide) * 0.5;
    scan.D = test_normal({c.d_inner}, 8).to(wide);
  }

  // The inputs of these rows (rows, …).
  std::pair<ConvInput, ScanInput> inputs(const at::Tensor& rows) const {
    ConvInput conv_in = conv;
    ScanInput scan_in = scan;
    conv_in.x = rows.narrow(1, c.d_inner, c.d_xb);
    scan_in.z = rows.narrow(1, 0, c.d_inner);
    scan_in.B = rows.narrow(1, c.d_inner + c.d_xb, c.d_xb);
    scan_in.C = rows.narrow(1, c.d_inner + 2 * c.d_xb, c.d_inner);
    return {conv_in, scan_in};
  }

  Case c;
  at::Tensor zxBC, low, dt_weight;
  ConvInput conv;
  ScanInput scan;
};

// y of every token, by whole sequences in fp32: (n, tokens, d_inner), and the states at the end.
std::pair<at::Tensor, at::Tensor> whole(const Layer& layer, std::int64_t n, std::int64_t tokens) {
  const Sequences sequences = Sequences::of(std::vector<std::int32_t>(n, static_cast<std::int32_t>(tokens)), layer.zxBC.device());
  auto [conv, scan] = layer.inputs(layer.zxBC.to(at::kFloat).flatten(0, 1));
  scan.dt = at::mm(layer.low.to(at::kFloat).flatten(0, 1), layer.dt_weight.to(at::kFloat).t());
  scan.x = causal_conv(conv, sequences);
  const ScanOutput out = selective_scan(scan, sequences, {.final_state = true, .positions = {}});
  return {out.y.view({n, tokens, layer.c.d_inner}), out.final_state};
}

void expect_whole(const Case& c, at::TensorOptions options, double tolerance) {
  SCOPED_TRACE(testing::Message() << c.d_inner << "/" << c.d_xb << " channels of " << c.state << ", width " << c.width
                                  << ", rank " << c.rank << ", " << options);
  constexpr std::int64_t n = 5, tokens = 9, slots = 8;
  const Layer layer(c, n, tokens, options);
  const at::TensorOptions on_device(options.device());
  // Whatever the slots held before does not matter.
  MambaCache cache{.windows = at::full({slots, c.d_xb, c.width - 1}, NAN, options),
                   .states = at::full({slots, c.d_inner, c.state}, NAN, options.dtype(at::kFloat)),
                   .slots = at::tensor({6, 1, 7, 0, 3}, on_device.dtype(at::kLong)),
                   .context_lens = {}};
  TestTensors ys;
  for (std::int64_t t = 0; t < tokens; ++t) {
    cache.context_lens = at::full({n}, t, on_device.dtype(at::kInt));
    const auto [conv, scan] = layer.inputs(layer.zxBC.select(1, t));
    ys.push_back(mamba_update(conv, scan, layer.low.select(1, t).contiguous(), layer.dt_weight, cache));
    EXPECT_EQ(ys.back().scalar_type(), at::typeMetaToScalarType(options.dtype()));
  }
  const auto [y, states] = whole(layer, n, tokens);
  EXPECT_LT(relative_error(at::stack(ys, 1), y), tolerance);
  EXPECT_LT(relative_error(cache.states.index_select(0, cache.slots), states), tolerance);
  EXPECT_TRUE(cache.states.index_select(0, at::tensor({2, 4, 5}, on_device.dtype(at::kLong))).isnan().all().item<bool>());
}

const std::vector<Case> kCases = {
    {64, 16, 16, 4, 16},        {64, 64, 16, 4, 8},     {96, 32, 8, 3, 16},   {48, 8, 8, 2, 8, true, false},
    {128, 32, 16, 4, 8, false}, {128, 64, 32, 4, 24},   {128, 64, 64, 4, 64}, {40, 20, 10, 4, 6},
    {64, 32, 4, 3, 5},          {256, 128, 128, 4, 16}, {64, 16, 16, 4, 100},
};

TEST(MambaUpdate, GivesWhatTheWholeSequenceGives) {
  for (const at::Device device : test_devices()) {
    for (const Case& c : kCases) {
      expect_whole(c, at::TensorOptions(device).dtype(at::kFloat), 2e-5);
      if (device.is_cuda()) expect_whole(c, at::TensorOptions(device).dtype(at::kBFloat16), 2e-2);
    }
  }
}

TEST(MambaUpdate, LeavesOutRowsOfNoSequenceOnAGpu) {
  for (const at::Device device : test_devices()) {
    if (!device.is_cuda()) continue;
    const at::TensorOptions options(device);
    for (const Case& c : {kCases[0], kCases[7]}) {
      const Layer layer(c, 4, 1, options.dtype(at::kFloat));
      MambaCache cache{.windows = at::zeros({4, c.d_xb, c.width - 1}, options),
                       .states = at::ones({4, c.d_inner, c.state}, options),
                       .slots = at::tensor({2, -1, 0, -1}, options.dtype(at::kLong)),
                       .context_lens = at::tensor({5, -1, 0, -1}, options.dtype(at::kInt))};
      const auto [conv, scan] = layer.inputs(layer.zxBC.select(1, 0));
      mamba_update(conv, scan, layer.low.select(1, 0).contiguous(), layer.dt_weight, cache);
      EXPECT_TRUE(cache.states.index_select(0, at::tensor({1, 3}, options.dtype(at::kLong))).eq(1).all().item<bool>());
      EXPECT_FALSE(cache.states.index_select(0, at::tensor({0, 2}, options.dtype(at::kLong))).eq(1).any().item<bool>());
    }
  }
}

TEST(MambaUpdate, WorksOnNothing) {
  for (const at::Device device : test_devices()) {
    const Case& c = kCases[0];
    const at::TensorOptions options(device);
    const Layer layer(c, 0, 1, options.dtype(at::kFloat));
    const MambaCache cache{.windows = at::zeros({1, c.d_xb, c.width - 1}, options),
                           .states = at::zeros({1, c.d_inner, c.state}, options),
                           .slots = at::empty({0}, options.dtype(at::kLong)),
                           .context_lens = at::empty({0}, options.dtype(at::kInt))};
    const auto [conv, scan] = layer.inputs(layer.zxBC.select(1, 0));
    EXPECT_EQ(mamba_update(conv, scan, layer.low.select(1, 0), layer.dt_weight, cache).sizes(), at::IntArrayRef({0, c.d_inner}));
  }
}

}  // namespace mamba_update_test
}  // namespace molt::ops
