// The one autograd node: gradients, undefined inputs and gradients, what is kept, recompute inside a backward pass.
#include "ops/autograd.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include "ops/sequences.h"

namespace molt::ops {
namespace autograd_test {

// a * b, counting the nodes' backward calls.
at::Tensor times(const at::Tensor& a, const at::Tensor& b, std::vector<bool>* seen = nullptr) {
  return record(
      {a, at::Tensor(), b},
      [&](Saved& saved) {
        saved.tensors = {a, at::Tensor(), b};
        return Tensors{a * b};
      },
      [seen](const Tensors& saved, const Tensors& gradients, const std::vector<bool>& needed) {
        if (seen) *seen = needed;
        EXPECT_FALSE(saved[1].defined());
        EXPECT_FALSE(c10::GradMode::is_enabled());
        return Tensors{needed[0] ? gradients[0] * saved[2] : at::Tensor(), at::Tensor(),
                       needed[2] ? gradients[0] * saved[0] : at::Tensor()};
      })[0];
}

// Runs times() twice without recording, and again with recording when its gradient is asked for, as recompute does.
at::Tensor recomputed(const at::Tensor& a, const at::Tensor& b) {
  return record(
      {a, b},
      [&](Saved& saved) {
        saved.tensors = {a, b};
        return Tensors{times(times(a, b), b)};
      },
      [](const Tensors& saved, const Tensors& gradients, const std::vector<bool>&) {
        c10::AutoGradMode recording(true);
        const at::Tensor a = saved[0].detach().requires_grad_(true), b = saved[1].detach().requires_grad_(true);
        times(times(a, b), b).backward(gradients[0]);
        return Tensors{a.grad(), b.grad()};
      })[0];
}

TEST(Record, GradientsReachOnlyWhatWantsThem) {
  const at::Tensor a = at::full({3}, 2.0).requires_grad_(true), b = at::full({3}, 5.0);
  std::vector<bool> needed;
  times(a, b, &needed).sum().backward();
  EXPECT_EQ(needed, (std::vector<bool>{true, false, false}));
  EXPECT_TRUE(a.grad().equal(at::full({3}, 5.0)));
  EXPECT_FALSE(b.grad().defined());
}

TEST(Record, MakesNoNodeWhenNothingWantsAGradient) {
  const at::Tensor a = at::ones({2}).requires_grad_(true), b = at::ones({2});
  EXPECT_FALSE(times(b, b).requires_grad());
  c10::AutoGradMode no_recording(false);
  bool recording = true;
  record(
      {a},
      [&](Saved& saved) {
        recording = saved.recording;
        return Tensors{a + 1};
      },
      nullptr);
  EXPECT_FALSE(recording);
}

TEST(Record, UnusedAndWholeNumberOutputs) {
  const at::Tensor a = at::ones({2}).requires_grad_(true);
  Tensors received;
  const Tensors outputs = record(
      {a}, [&](Saved&) { return Tensors{a * 2, a * 3, at::zeros({1}, at::kLong)}; },
      [&](const Tensors&, const Tensors& gradients, const std::vector<bool>&) {
        received = gradients;
        return Tensors{gradients[1] * 3};
      });
  EXPECT_FALSE(outputs[2].requires_grad());
  outputs[1].sum().backward();
  ASSERT_EQ(received.size(), 3u);
  EXPECT_FALSE(received[0].defined());
  EXPECT_TRUE(a.grad().equal(at::full({2}, 3.0)));
}

TEST(Record, KeepsOutputsWithoutALeak) {
  const at::Tensor a = at::full({2}, 3.0).requires_grad_(true);
  at::Tensor output = record(
      {a},
      [&](Saved& saved) {
        const at::Tensor result = a.exp();
        saved.tensors = {result};
        return Tensors{result};
      },
      [](const Tensors& saved, const Tensors& gradients, const std::vector<bool>&) {
        return Tensors{gradients[0] * saved[0]};
      })[0];
  const c10::weak_intrusive_ptr<c10::TensorImpl> watch(output.getIntrusivePtr());
  output.sum().backward();
  EXPECT_TRUE(a.grad().equal(output.detach()));
  output = at::Tensor();
  EXPECT_TRUE(watch.expired());
}

TEST(Record, ChangingASavedTensorIsAnError) {
  const at::Tensor a = at::ones({2}).requires_grad_(true), b = at::ones({2});
  const at::Tensor product = times(a, b).sum();
  b.add_(1);
  EXPECT_THROW(product.backward(), c10::Error);
}

TEST(Record, SecondDerivativeIsAnError) {
  const at::Tensor a = at::ones({2}).requires_grad_(true);
  EXPECT_THROW(times(a, a).sum().backward({}, true, true), std::exception);
}

TEST(Record, RecomputesInsideABackwardPass) {
  const at::Tensor b = at::full({2}, 1.01).requires_grad_(true);
  at::Tensor h = at::ones({2});
  for (int depth = 0; depth < 50; ++depth) h = recomputed(h.requires_grad_(true), b);
  h.sum().backward();
  EXPECT_NEAR(b.grad()[0].item<double>(), 100 * std::pow(1.01, 99), 1e-3);
}

TEST(Sequences, OffsetsOnHostAndDevice) {
  const Sequences sequences = Sequences::of({3, 0, 5});
  EXPECT_EQ(sequences.count(), 3);
  EXPECT_EQ(sequences.tokens(), 8);
  EXPECT_EQ(sequences.length(1), 0);
  EXPECT_EQ(sequences.max_length, 5);
  EXPECT_TRUE(sequences.cu_seqlens.equal(at::tensor({0, 3, 3, 8}, at::kInt)));
  EXPECT_EQ(Sequences::of({}).count(), 0);
  EXPECT_EQ(Sequences::of({}).cu_seqlens.numel(), 1);
}

}  // namespace autograd_test
}  // namespace molt::ops
