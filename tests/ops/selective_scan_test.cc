// The kernels of the selective scan against its composite form, against finite differences, and against themselves cut in pieces.
#include "ops/selective_scan/selective_scan.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include "devices.h"
#include "ops/selective_scan/selective_scan_node.h"

namespace molt::ops {
namespace scan_test {

struct Case {
  std::vector<std::int32_t> lengths;
  std::int64_t d_inner = 32, d_xb = 16, state = 16;
  bool x_repeated = false, optional = true;  // optional: with dt_bias, D, z and initial state
  std::int64_t padding = 3;                  // columns behind the inputs in the projection that they are slices of
};

const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      {.lengths = {7}},
      {.lengths = {1, 1, 1}, .optional = false},
      {.lengths = {63, 64, 65}},
      {.lengths = {0, 129, 0, 1, 200, 0}, .d_inner = 64},
      {.lengths = {130}, .d_inner = 64, .x_repeated = true},
      {.lengths = {70, 3}, .d_inner = 30, .d_xb = 10, .state = 5},
      {.lengths = {66}, .d_inner = 12, .d_xb = 12, .state = 12},
      {.lengths = {5, 60}, .d_inner = 4, .d_xb = 2, .state = 1, .optional = false},
      {.lengths = {20}, .d_inner = 48, .d_xb = 24, .state = 24},
      {.lengths = {1000}, .d_inner = 64, .padding = 4},
      {.lengths = {1, 300, 64, 0, 128}, .d_inner = 256, .d_xb = 64, .x_repeated = true, .padding = 4},
      {.lengths = {90}, .d_inner = 96, .padding = 4},  // more groups to a row of B than one block of a GPU has
      {.lengths = {130}, .d_inner = 224, .d_xb = 32},
      {.lengths = {5, 20}, .d_inner = 4096, .d_xb = 1024, .padding = 4},
      {.lengths = {40}, .d_inner = 128, .d_xb = 128, .state = 128, .optional = false},
      {.lengths = {}},
      {.lengths = {0, 0}},
  };
  return all;
}

ScanInput random_input(const Case& c, at::TensorOptions options, bool slices = true) {
  at::manual_seed(static_cast<std::uint64_t>(c.d_inner * 131 + c.state + static_cast<std::int64_t>(c.lengths.size())));
  const auto precision = options.dtype() == at::kDouble ? at::kDouble : at::kFloat;
  const std::int64_t tokens = Sequences::of(c.lengths).tokens(), count = static_cast<std::int64_t>(c.lengths.size());
  const std::int64_t d_x = c.x_repeated ? c.d_inner : c.d_xb;
  // z, x, B and C are slices of one projection, as in the layer.
  const at::Tensor wide = at::randn({tokens, 2 * c.d_inner + d_x + c.d_xb + c.padding}, at::kDouble).to(options);
  std::int64_t column = 0;
  const auto take = [&](std::int64_t width) {
    const at::Tensor slice = wide.narrow(1, column, width);
    column += width;
    return slices ? slice : slice.contiguous();
  };
  const auto narrow_options = options.dtype(precision);
  const auto draw = [&](at::IntArrayRef shape) { return at::randn(shape, at::kDouble).to(narrow_options); };
  ScanInput in;
  in.z = take(c.d_inner);
  in.x = take(d_x);
  in.B = take(c.d_xb);
  in.C = take(c.d_inner);
  in.dt = at::randn({tokens, c.d_inner}, at::kDouble).to(options);
  in.A_log = draw({c.d_inner, c.state}) * 0.5;
  in.dt_bias = draw({c.d_inner}) - 1;
  in.D = draw({c.d_inner});
  in.initial_state = draw({count, c.d_inner, c.state});
  if (!c.optional) in.z = in.dt_bias = in.D = in.initial_state = at::Tensor();
  return in;
}

std::vector<at::Tensor*> fields(ScanInput& in) {
  std::vector<at::Tensor*> all = {&in.x, &in.dt, &in.dt_bias, &in.A_log, &in.B, &in.C, &in.D, &in.z, &in.initial_state};
  std::erase_if(all, [](const at::Tensor* field) { return !field->defined(); });
  return all;
}

// The largest difference, in units of the largest value (or of one, where all values are small).
double difference(const at::Tensor& a, const at::Tensor& b) {
  EXPECT_EQ(a.sizes(), b.sizes());
  if (a.numel() == 0) return 0;
  const at::Tensor wide = b.to(at::kDouble);
  return ((a.to(at::kDouble) - wide).abs().max() / (wide.abs().max() + 0.1)).item<double>();
}

using Scan = ScanOutput (*)(const ScanInput&, const Sequences&, const ScanRequest&);

// y, final state and every input's gradient, with random weights on y and the final state.
std::vector<at::Tensor> with_gradients(Scan scan, ScanInput in, const Sequences& sequences) {
  for (at::Tensor* field : fields(in)) *field = field->detach().requires_grad_(true);
  const ScanOutput out = scan(in, sequences, {.final_state = true, .positions = {}});
  at::manual_seed(5);
  const at::Tensor y_weights = at::randn(out.y.sizes(), at::kDouble).to(out.y.options());
  const at::Tensor state_weights = at::randn(out.final_state.sizes(), at::kDouble).to(out.final_state.options());
  ((out.y * y_weights).sum() + (out.final_state * state_weights).sum()).backward();
  std::vector<at::Tensor> all = {out.y.detach(), out.final_state.detach()};
  for (const at::Tensor* field : fields(in)) all.push_back(field->grad().defined() ? field->grad() : at::zeros_like(*field));
  return all;
}

void expect_like_composite(at::ScalarType dtype, double tolerance) {
  for (const at::Device device : test_devices()) {
    for (const Case& c : cases()) {
      SCOPED_TRACE(::testing::Message() << device << ", d_inner " << c.d_inner << ", state " << c.state << ", sequences "
                                        << c.lengths.size());
      const Sequences sequences = Sequences::of(c.lengths, device);
      const ScanInput in = random_input(c, at::TensorOptions(device).dtype(dtype));
      const auto kernel = with_gradients(selective_scan, in, sequences),
                 composite = with_gradients(selective_scan_composite, in, sequences);
      for (std::size_t i = 0; i < kernel.size(); ++i) {
        EXPECT_EQ(kernel[i].dtype(), composite[i].dtype());
        EXPECT_LT(difference(kernel[i], composite[i]), tolerance) << "output or gradient " << i;
      }
    }
  }
}

TEST(SelectiveScan, LikeCompositeInSinglePrecision) {
  expect_like_composite(at::kFloat, 3e-6);
}
TEST(SelectiveScan, LikeCompositeInDoublePrecision) {
  expect_like_composite(at::kDouble, 1e-13);
}
TEST(SelectiveScan, LikeCompositeInBfloat16) {
  expect_like_composite(at::kBFloat16, 1e-2);
}

TEST(SelectiveScan, GradientsAreFiniteDifferences) {
  const Case c{.lengths = {3, 66}, .d_inner = 8, .d_xb = 4, .state = 2};
  const Sequences sequences = Sequences::of(c.lengths);
  ScanInput in = random_input(c, at::kDouble, false);
  const std::vector<at::Tensor> gradients = with_gradients(selective_scan, in, sequences);
  at::manual_seed(5);
  const at::Tensor y_weights = at::randn({69, 8}, at::kDouble), state_weights = at::randn({2, 8, 2}, at::kDouble);
  const auto loss = [&] {
    const ScanOutput out = selective_scan(in, sequences, {.final_state = true, .positions = {}});
    return ((out.y * y_weights).sum() + (out.final_state * state_weights).sum()).item<double>();
  };
  const auto all = fields(in);
  for (std::size_t i = 0; i < all.size(); ++i) {
    const std::int64_t count = all[i]->numel();
    for (std::int64_t k = 0; k < count; k += 1 + count / 5) {
      double* value = all[i]->data_ptr<double>() + k;
      const double kept = *value, step = 1e-6;
      *value = kept + step;
      const double up = loss();
      *value = kept - step;
      const double down = loss();
      *value = kept;
      EXPECT_NEAR(gradients[i + 2].contiguous().data_ptr<double>()[k], (up - down) / (2 * step), 1e-7)
          << "input " << i << ", " << k;
    }
  }
}

TEST(SelectiveScan, PackedIsTheSameAsOneByOne) {
  for (const at::Device device : test_devices()) {
    const Case c{.lengths = {1, 70, 0, 129}, .d_inner = 64, .d_xb = 32};
    const Sequences sequences = Sequences::of(c.lengths, device);
    const ScanInput in = random_input(c, device);
    const ScanOutput packed = selective_scan(in, sequences, {.final_state = true, .positions = {}});
    for (std::int64_t s = 0; s < sequences.count(); ++s) {
      const std::int64_t begin = sequences.offsets[s], length = sequences.length(s);
      ScanInput one = in;
      for (at::Tensor* field : {&one.x, &one.dt, &one.B, &one.C, &one.z}) *field = field->narrow(0, begin, length);
      one.initial_state = in.initial_state.narrow(0, s, 1);
      const ScanOutput alone = selective_scan(one, Sequences::of({c.lengths[s]}, device), {.final_state = true, .positions = {}});
      // Where a GPU cuts a sequence depends on the batch.
      const double tolerance = device.is_cpu() ? 0 : 1e-6;
      EXPECT_LE(difference(alone.y, packed.y.narrow(0, begin, length)), tolerance);
      EXPECT_LE(difference(alone.final_state, packed.final_state.narrow(0, s, 1)), tolerance);
    }
  }
}

TEST(SelectiveScan, StatesChainAndAreReadAtPositions) {
  for (const at::Device device : test_devices()) {
    const Case c{.lengths = {90, 150}, .d_inner = 48, .d_xb = 16};
    const Sequences sequences = Sequences::of(c.lengths, device);
    const ScanInput in = random_input(c, device);
    const ScanRequest request{.final_state = true, .positions = {0, 63, 64, 89, 90, 120, 239}};
    const ScanOutput whole = selective_scan(in, sequences, request);
    EXPECT_LT(difference(whole.states, selective_scan_composite(in, sequences, request).states), 3e-6);
    EXPECT_TRUE(whole.states[3].equal(whole.final_state[0]));
    EXPECT_TRUE(whole.states[6].equal(whole.final_state[1]));
    EXPECT_TRUE(whole.y.equal(selective_scan(in, sequences).y));

    // The rest of the second sequence, from the state after its token 30.
    ScanInput rest = in;
    for (at::Tensor* field : {&rest.x, &rest.dt, &rest.B, &rest.C, &rest.z}) *field = field->narrow(0, 121, 119);
    rest.initial_state = whole.states.narrow(0, 5, 1);
    const ScanOutput chained = selective_scan(rest, Sequences::of({119}, device), {.final_state = true, .positions = {}});
    EXPECT_LT(difference(chained.y, whole.y.narrow(0, 121, 119)), 1e-6);
    EXPECT_LT(difference(chained.final_state[0], whole.final_state[1]), 1e-6);
  }
}

TEST(SelectiveScan, UpdatesGoOnWhereTheScanWould) {
  for (const at::Device device : test_devices()) {
    for (Case c : cases()) {
      if (c.lengths.empty() || c.lengths[0] == 0) continue;
      c.lengths = {12, 12, 12};
      const Sequences sequences = Sequences::of(c.lengths, device);
      for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
        const ScanInput in = random_input(c, at::TensorOptions(device).dtype(type));
        const ScanOutput whole = selective_scan(in, sequences, {.final_state = true, .positions = {}});
        const auto slot_type = c.x_repeated ? at::kInt : at::kLong;
        const at::Tensor slots = at::tensor({4, 0, 2}, slot_type).to(device), unused = at::tensor({1, 3}, at::kLong).to(device);
        at::Tensor cache = at::full({5, c.d_inner, c.state}, 7.0, at::TensorOptions(device));
        cache.index_fill_(0, slots.to(at::kLong), 0);
        if (in.initial_state.defined()) cache.index_copy_(0, slots.to(at::kLong), in.initial_state);
        std::vector<at::Tensor> ys;
        for (std::int64_t t = 0; t < 12; ++t) {
          ScanInput one = in;
          for (at::Tensor* field : {&one.x, &one.dt, &one.B, &one.C, &one.z}) {
            if (field->defined()) *field = field->slice(0, t, 36, 12);
          }
          one.initial_state = at::Tensor();
          ys.push_back(selective_scan_update(one, cache, slots));
        }
        const at::Tensor y = at::stack(ys, 1).reshape({36, c.d_inner});
        EXPECT_EQ(y.scalar_type(), type);
        EXPECT_LT(difference(y, whole.y), type == at::kFloat ? 3e-6 : 1e-2);
        EXPECT_LT(difference(cache.index_select(0, slots), whole.final_state), 3e-6);
        EXPECT_TRUE(cache.index_select(0, unused).eq(7).all().item<bool>());
      }
    }
  }
}

TEST(SelectiveScan, ExtremesStayFiniteAndErrorsShow) {
  const Case c{.lengths = {80}};
  ScanInput in = random_input(c, at::kFloat);
  in.dt = in.dt * 200;          // softplus from 0 to hundreds
  in.A_log = in.A_log * 0 + 4;  // decay of e^-54 a unit
  in.z = in.z * 100;
  for (const at::Tensor& value : with_gradients(selective_scan, in, Sequences::of(c.lengths))) {
    EXPECT_TRUE(value.isfinite().all().item<bool>());
  }
  in.A_log[3][2] = std::nan("");
  EXPECT_TRUE(selective_scan(in, Sequences::of(c.lengths)).y.isnan().any().item<bool>());
}

TEST(SelectiveScan, ThreadsDoNotChangeTheResult) {
  const Case c{.lengths = {300, 5, 40}, .d_inner = 128, .d_xb = 32};
  const Sequences sequences = Sequences::of(c.lengths);
  const ScanInput in = random_input(c, at::kFloat);
  const int threads = at::get_num_threads();
  const auto several = with_gradients(selective_scan, in, sequences);
  at::set_num_threads(1);
  const auto one = with_gradients(selective_scan, in, sequences);
  at::set_num_threads(threads);
  for (std::size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(one[i].equal(several[i])) << i;
}

TEST(SelectiveScan, TellsHowMuchItKeepsForBackward) {
  for (const at::Device device : test_devices()) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kDouble}) {
      for (const Case& c : cases()) {
        const ScanInput in = random_input(c, at::TensorOptions(device).dtype(dtype));
        if (!scan::has_kernel(in)) continue;
        const Sequences sequences = Sequences::of(c.lengths, device);
        Saved saved{.tensors = {}, .recording = true};
        scan::forward(in, sequences, {}, saved);
        EXPECT_EQ(selective_scan_kept_bytes(sequences.tokens(), sequences.count(), in.A_log, dtype, device),
                  static_cast<std::int64_t>(saved.tensors.back().nbytes()));
      }
    }
  }
}

TEST(SelectiveScan, WrongShapesAreNamed) {
  const Case c{.lengths = {4}};
  ScanInput in = random_input(c, at::kFloat);
  const Sequences sequences = Sequences::of(c.lengths);
  in.C = in.C.narrow(1, 0, 16);
  try {
    selective_scan(in, sequences);
    FAIL();
  } catch (const std::logic_error& error) {
    EXPECT_NE(std::string(error.what()).find("C has shape [4, 16], expected [4, 32]"), std::string::npos) << error.what();
  }
  EXPECT_THROW(selective_scan(random_input(c, at::kFloat), sequences, {.final_state = false, .positions = {4}}),
               std::logic_error);
  EXPECT_THROW(selective_scan_update(random_input(c, at::kFloat), at::zeros({2, 32, 16}), at::tensor({0, 1, 2, 3}, at::kLong)),
               std::logic_error);
}

}  // namespace scan_test
}  // namespace molt::ops
