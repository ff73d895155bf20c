// The scan and the convolution keep every core busy, forward and backward, also with a single sequence; so do products of few
// rows.
#include <ATen/Functions.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include "busy_threads.h"
#include "ops/causal_conv/causal_conv.h"
#include "ops/selective_scan/selective_scan.h"
#include "ops/skinny_linear/skinny_linear.h"

namespace molt::ops {
namespace threads_test {

TEST(Threads, ScanUsesThemAll) {
  const int threads = few_threads();
  const Sequences sequences = Sequences::of({2048});
  ScanInput in{.x = at::randn({2048, 64}),
               .dt = at::randn({2048, 256}),
               .dt_bias = {},
               .A_log = at::zeros({256, 16}),
               .B = at::randn({2048, 64}),
               .C = at::randn({2048, 256}),
               .D = {},
               .z = {},
               .initial_state = {}};
  const auto forward = [&] {
    for (int i = 0; i < 8; ++i) selective_scan(in, sequences);
  };
  forward();
  EXPECT_EQ(busy_threads(forward), threads);
  in.dt.requires_grad_(true);
  EXPECT_EQ(busy_threads([&] {
              for (int i = 0; i < 4; ++i) selective_scan(in, sequences).y.sum().backward();
            }),
            threads);
}

TEST(Threads, ConvolutionUsesThemAll) {
  const int threads = few_threads();
  const Sequences sequences = Sequences::of({8192});
  ConvInput in;
  in.x = at::randn({8192, 256});
  in.weight = at::randn({256, 4});
  const auto forward = [&] {
    for (int i = 0; i < 10; ++i) causal_conv(in, sequences);
  };
  forward();
  EXPECT_EQ(busy_threads(forward), threads);
  in.x.requires_grad_(true);
  EXPECT_EQ(busy_threads([&] {
              for (int i = 0; i < 5; ++i) causal_conv(in, sequences).sum().backward();
            }),
            threads);
}

TEST(Threads, ProductsOfFewRowsUseThemAll) {
  const int threads = few_threads();
  const at::Tensor weight = at::randn({2048, 512});
  c10::InferenceMode no_gradients;
  const at::Tensor x = at::randn({16, 512});
  const auto forward = [&] {
    for (int i = 0; i < 50; ++i) skinny_linear(x, weight);
  };
  forward();
  EXPECT_EQ(busy_threads(forward), threads);
}

}  // namespace threads_test
}  // namespace molt::ops
