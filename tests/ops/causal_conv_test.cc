// The kernels of the causal convolution against its composite form, against finite differences, and against themselves cut in
// pieces.
#include "ops/causal_conv/causal_conv.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include "devices.h"

namespace molt::ops {
namespace conv_test {

struct Case {
  std::vector<std::int32_t> lengths;
  std::int64_t columns = 32, width = 4, repeat = 1, group_size = 1;
  bool optional = true, silu = true;  // optional: with bias and initial window
  bool aligned = false;               // rows of x begin at multiples of 16 bytes, as packs of values need
};

const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      {.lengths = {7}},
      {.lengths = {1, 2, 3, 4, 5}, .columns = 70},
      {.lengths = {1, 1}, .width = 2, .optional = false},
      {.lengths = {0, 130, 0, 2}, .columns = 32, .repeat = 4, .group_size = 16},
      {.lengths = {40, 3}, .columns = 10, .width = 3, .repeat = 3, .group_size = 5, .silu = false},
      {.lengths = {300}, .columns = 3, .optional = false},
      {.lengths = {9}, .columns = 128, .repeat = 2, .group_size = 128},
      {.lengths = {}},
      {.lengths = {0, 0}},
      {.lengths = {70, 1, 0, 200, 3}, .columns = 64, .repeat = 4, .group_size = 16, .aligned = true},
      {.lengths = {5, 90}, .columns = 48, .repeat = 2, .group_size = 8, .aligned = true},
      {.lengths = {4, 4, 130}, .columns = 128, .optional = false, .aligned = true},
      {.lengths = {2, 3, 1, 60}, .columns = 40, .silu = false, .aligned = true},
      {.lengths = {33}, .columns = 16, .repeat = 8, .group_size = 16, .aligned = true},
      {.lengths = {21}, .columns = 16, .width = 3, .repeat = 4, .group_size = 8, .aligned = true},
      {.lengths = {3000, 5}, .columns = 32, .repeat = 4, .group_size = 16, .aligned = true},
  };
  return all;
}

ConvInput random_input(const Case& c, at::TensorOptions options) {
  at::manual_seed(static_cast<std::uint64_t>(c.columns * 7 + c.width));
  const auto precise = options.dtype(options.dtype() == at::kDouble ? at::kDouble : at::kFloat);
  const std::int64_t tokens = Sequences::of(c.lengths).tokens(), channels = c.columns * c.repeat;
  const auto draw = [](at::IntArrayRef shape) { return at::randn(shape, at::kDouble); };
  ConvInput in;
  in.x = draw({tokens, c.columns + (c.aligned ? 16 : 5)}).to(options).narrow(1, c.aligned ? 8 : 2, c.columns);  // as in the layer
  in.weight = draw({channels, c.width}).to(precise);
  if (c.optional) {
    in.bias = draw({channels}).to(precise);
    in.initial_window = draw({static_cast<std::int64_t>(c.lengths.size()), c.columns, c.width - 1}).to(options);
  }
  in.silu = c.silu;
  in.repeat = c.repeat;
  in.group_size = c.group_size;
  return in;
}

std::vector<at::Tensor*> fields(ConvInput& in) {
  std::vector<at::Tensor*> all = {&in.x, &in.weight, &in.bias, &in.initial_window};
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

using Conv = at::Tensor (*)(const ConvInput&, const Sequences&);

// y, final windows and every input's gradient, with random weights on y and the final windows.
std::vector<at::Tensor> with_gradients(Conv conv, ConvInput in, const Sequences& sequences) {
  for (at::Tensor* field : fields(in)) *field = field->detach().requires_grad_(true);
  const at::Tensor y = conv(in, sequences), windows = causal_conv_final_windows(in, sequences);
  at::manual_seed(5);
  const at::Tensor y_weights = at::randn(y.sizes(), at::kDouble).to(y.options());
  const at::Tensor window_weights = at::randn(windows.sizes(), at::kDouble).to(windows.options());
  ((y * y_weights).sum() + (windows * window_weights).sum()).backward();
  std::vector<at::Tensor> all = {y.detach(), windows.detach()};
  for (const at::Tensor* field : fields(in)) all.push_back(field->grad().defined() ? field->grad() : at::zeros_like(*field));
  return all;
}

void expect_like_composite(at::ScalarType dtype, double tolerance) {
  for (const at::Device device : test_devices()) {
    for (const Case& c : cases()) {
      SCOPED_TRACE(::testing::Message() << device << ", columns " << c.columns << ", sequences " << c.lengths.size());
      const Sequences sequences = Sequences::of(c.lengths, device);
      const ConvInput in = random_input(c, at::TensorOptions(device).dtype(dtype));
      const auto kernel = with_gradients(causal_conv, in, sequences),
                 composite = with_gradients(causal_conv_composite, in, sequences);
      for (std::size_t i = 0; i < kernel.size(); ++i) {
        EXPECT_EQ(kernel[i].dtype(), composite[i].dtype());
        EXPECT_LT(difference(kernel[i], composite[i]), tolerance) << "output or gradient " << i;
      }
    }
  }
}

TEST(CausalConv, LikeCompositeInSinglePrecision) {
  expect_like_composite(at::kFloat, 2e-6);
}
TEST(CausalConv, LikeCompositeInDoublePrecision) {
  expect_like_composite(at::kDouble, 1e-13);
}
TEST(CausalConv, LikeCompositeInBfloat16) {
  expect_like_composite(at::kBFloat16, 1e-2);
}

TEST(CausalConv, GradientsAreFiniteDifferences) {
  const Case c{.lengths = {2, 5}, .columns = 4, .repeat = 2, .group_size = 2};
  const Sequences sequences = Sequences::of(c.lengths);
  ConvInput in = random_input(c, at::kDouble);
  in.x = in.x.contiguous();
  const auto gradients = with_gradients(causal_conv, in, sequences);
  at::manual_seed(5);
  const at::Tensor y_weights = at::randn({7, 8}, at::kDouble), window_weights = at::randn({2, 4, 3}, at::kDouble);
  const auto loss = [&] {
    return ((causal_conv(in, sequences) * y_weights).sum() + (causal_conv_final_windows(in, sequences) * window_weights).sum())
        .item<double>();
  };
  const auto all = fields(in);
  for (std::size_t i = 0; i < all.size(); ++i) {
    for (std::int64_t k = 0; k < all[i]->numel(); ++k) {
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

TEST(CausalConv, GradientsAreTheSameEveryTime) {
  for (const at::Device device : test_devices()) {
    const Case c{.lengths = {500, 40}, .columns = 32, .repeat = 4, .group_size = 16, .aligned = true};
    const Sequences sequences = Sequences::of(c.lengths, device);
    const ConvInput in = random_input(c, at::TensorOptions(device).dtype(at::kFloat));
    const auto one = with_gradients(causal_conv, in, sequences), two = with_gradients(causal_conv, in, sequences);
    for (std::size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(one[i].equal(two[i])) << i;
  }
}

// The published layer's order: x repeated as grouped-query attention repeats keys, then an ordinary convolution.
TEST(CausalConv, RepeatingInPlaceIsRepeatingInMemory) {
  for (const at::Device device : test_devices()) {
    const Case c{.lengths = {20, 1}, .columns = 32, .repeat = 4, .group_size = 16};
    const Sequences sequences = Sequences::of(c.lengths, device);
    const ConvInput in = random_input(c, device);
    ConvInput repeated = in;
    repeated.x = in.x.reshape({21, 2, 1, 16}).expand({21, 2, 4, 16}).reshape({21, 128});
    repeated.initial_window = in.initial_window.reshape({2, 2, 1, 16, 3}).expand({2, 2, 4, 16, 3}).reshape({2, 128, 3});
    repeated.repeat = 1;
    EXPECT_LT(difference(causal_conv(in, sequences), causal_conv(repeated, sequences)), 1e-6);
  }
}

TEST(CausalConv, WindowsChainAndAreReadAtPositions) {
  for (const at::Device device : test_devices()) {
    const Case c{.lengths = {2, 30}, .columns = 20};
    const Sequences sequences = Sequences::of(c.lengths, device);
    const ConvInput in = random_input(c, device);
    const at::Tensor y = causal_conv(in, sequences), windows = causal_conv_windows(in, sequences, {0, 1, 2, 12, 31});
    EXPECT_TRUE(
        windows.index_select(0, at::tensor({1, 4}, at::kLong).to(device)).equal(causal_conv_final_windows(in, sequences)));
    // After one token the window is the last two rows of the initial one, then the token.
    EXPECT_TRUE(windows[0].narrow(1, 0, 2).equal(in.initial_window[0].narrow(1, 1, 2)));
    EXPECT_TRUE(windows[0].select(1, 2).equal(in.x[0]));

    ConvInput rest = in;
    rest.x = in.x.narrow(0, 13, 19);
    rest.initial_window = windows.narrow(0, 3, 1);
    EXPECT_LT(difference(causal_conv(rest, Sequences::of({19}, device)), y.narrow(0, 13, 19)), 1e-6);
  }
}

TEST(CausalConv, UpdatesGoOnWhereTheConvolutionWould) {
  for (const at::Device device : test_devices()) {
    for (Case c : cases()) {
      if (c.lengths.empty() || c.lengths[0] == 0) continue;
      c.lengths = {6, 6, 6};
      const Sequences sequences = Sequences::of(c.lengths, device);
      for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
        const ConvInput in = random_input(c, at::TensorOptions(device).dtype(type));
        const at::Tensor slots = at::tensor({4, 0, 2}, c.repeat > 1 ? at::kInt : at::kLong).to(device);
        const at::Tensor unused = at::tensor({1, 3}, at::kLong).to(device);
        at::Tensor cache = at::full({5, c.columns, c.width - 1}, 7.0, in.x.options());
        cache.index_fill_(0, slots.to(at::kLong), 0);
        if (in.initial_window.defined()) cache.index_copy_(0, slots.to(at::kLong), in.initial_window);
        std::vector<at::Tensor> ys;
        for (std::int64_t t = 0; t < 6; ++t) {
          ConvInput one = in;
          one.x = in.x.slice(0, t, 18, 6);
          one.initial_window = at::Tensor();
          ys.push_back(causal_conv_update(one, cache, slots));
        }
        const at::Tensor y = at::stack(ys, 1).reshape({18, c.columns * c.repeat});
        EXPECT_EQ(y.scalar_type(), type);
        EXPECT_LT(difference(y, causal_conv(in, sequences)), type == at::kFloat ? 1e-6 : 1e-2);
        EXPECT_TRUE(cache.index_select(0, slots).equal(causal_conv_final_windows(in, sequences)));
        EXPECT_TRUE(cache.index_select(0, unused).eq(7).all().item<bool>());
      }
    }
  }
}

TEST(CausalConv, ThreadsDoNotChangeTheResult) {
  const Case c{.lengths = {300, 5, 40}, .columns = 256};
  const Sequences sequences = Sequences::of(c.lengths);
  const ConvInput in = random_input(c, at::kFloat);
  const int threads = at::get_num_threads();
  const auto several = with_gradients(causal_conv, in, sequences);
  at::set_num_threads(1);
  const auto one = with_gradients(causal_conv, in, sequences);
  at::set_num_threads(threads);
  for (std::size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(one[i].equal(several[i])) << i;
}

TEST(CausalConv, WrongShapesAreErrors) {
  const Case c{.lengths = {4}};
  const Sequences sequences = Sequences::of(c.lengths);
  ConvInput in = random_input(c, at::kFloat);
  in.weight = at::zeros({32, 5});
  EXPECT_THROW(causal_conv(in, sequences), std::logic_error);
  in = random_input(c, at::kFloat);
  in.initial_window = at::zeros({1, 32, 2});
  EXPECT_THROW(causal_conv(in, sequences), std::logic_error);
  EXPECT_THROW(causal_conv(random_input(c, at::kFloat), Sequences::of({5})), std::logic_error);
}

}  // namespace conv_test
}  // namespace molt::ops
