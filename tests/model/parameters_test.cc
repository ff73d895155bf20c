#include "model/parameters.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <set>

#include "model/linear.h"
#include "model/recompute.h"
#include "model/support.h"

namespace molt::test {

namespace parameters_test {

bool everything(const std::string&) {
  return true;
}

// A loss that depends on every parameter.
at::Tensor loss_of(const Model& model, const PackedBatch& batch, Recompute recompute = Recompute::none, Taps* taps = nullptr) {
  return model.logits(model.forward(batch, recompute, taps)).to(at::kFloat).square().sum();
}

TEST(FlatBuffer, HoldsAlignedLeaves) {
  const auto model = new_model(hybrid_config());
  const auto before = model->parameters();
  std::vector<at::Tensor> values;
  for (const Parameter& parameter : before) values.push_back(parameter.value.clone());
  const auto buffers = flatten_trainable([&](const ParameterVisitor& v) { model->visit(v); }, everything);
  ASSERT_EQ(buffers.size(), 1u);
  const auto after = model->parameters();
  ASSERT_EQ(buffers[0].pieces.size(), after.size());
  for (std::size_t i = 0; i < after.size(); ++i) {
    const auto& piece = buffers[0].pieces[i];
    EXPECT_EQ(piece.name, after[i].name);
    EXPECT_TRUE(piece.value.is_same(after[i].value));
    EXPECT_TRUE(at::equal(piece.value, values[i])) << piece.name;
    EXPECT_TRUE(piece.value.is_leaf() && piece.value.requires_grad());
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(piece.value.const_data_ptr()) % 64, 0u) << piece.name;
    EXPECT_EQ(piece.value.const_data_ptr<float>(), buffers[0].values.const_data_ptr<float>() + piece.offset);
  }
}

TEST(FlatBuffer, GathersGradientsOverPasses) {
  const auto model = new_model(hybrid_config());
  auto buffers = flatten_trainable([&](const ParameterVisitor& v) { model->visit(v); }, everything);
  FlatBuffer& buffer = buffers[0];
  const PackedBatch batch = random_batch({5, 3});
  zero_gradients(buffer);
  const void* place = buffer.gradients.const_data_ptr();
  loss_of(*model, batch).backward();
  const at::Tensor once = buffer.gradients.clone();
  EXPECT_GT(once.abs().max().item<float>(), 0);
  loss_of(*model, batch).backward();
  EXPECT_LT(difference(buffer.gradients, 2 * once), 1e-6 * once.abs().max().item<double>());
  for (const auto& piece : buffer.pieces) {
    EXPECT_EQ(piece.value.grad().const_data_ptr<float>(), buffer.gradients.const_data_ptr<float>() + piece.offset) << piece.name;
    EXPECT_GT(piece.value.grad().abs().max().item<float>(), 0) << piece.name;
  }
  zero_gradients(buffer);
  EXPECT_EQ(buffer.gradients.const_data_ptr(), place);
  EXPECT_EQ(buffer.pieces[0].value.grad().abs().max().item<float>(), 0);
}

TEST(FlatBuffer, KeepsSixteenBitWeightsAndFp32Gradients) {
  const auto model = new_model(hybrid_config(), at::kBFloat16);
  auto buffers = flatten_trainable([&](const ParameterVisitor& v) { model->visit(v); }, everything);
  ASSERT_EQ(buffers.size(), 2u);  // bf16, and fp32 for A_log and D
  for (FlatBuffer& buffer : buffers) {
    zero_gradients(buffer);
    EXPECT_EQ(buffer.gradients.scalar_type(), at::kFloat);
  }
  const PackedBatch batch = random_batch({5, 3});
  for (const Recompute recompute : {Recompute::none, Recompute::block}) {
    loss_of(*model, batch, recompute).backward();
  }
  for (const FlatBuffer& buffer : buffers) {
    for (const auto& piece : buffer.pieces) {
      EXPECT_EQ(piece.value.grad().const_data_ptr<float>(), buffer.gradients.const_data_ptr<float>() + piece.offset)
          << piece.name;
      EXPECT_GT(piece.value.grad().abs().max().item<float>(), 0) << piece.name;
    }
  }
}

TEST(FlatBuffer, FreezesTheRest) {
  const auto model = new_model(hybrid_config());
  flatten_trainable([&](const ParameterVisitor& v) { model->visit(v); }, everything);
  const auto buffers = flatten_trainable([&](const ParameterVisitor& v) { model->visit(v); },
                                         [](const std::string& name) { return name.starts_with("layers.1."); });
  for (const Parameter& parameter : model->parameters()) {
    EXPECT_EQ(parameter.value.requires_grad(), parameter.name.starts_with("layers.1.")) << parameter.name;
  }
  EXPECT_EQ(buffers[0].pieces.size(), 13u);
}

// The gradients of every parameter after two passes over two packs, by name.
std::map<std::string, at::Tensor> gradients_with(Recompute recompute, const std::string& trained, Taps* taps = nullptr) {
  const auto model = new_model(hybrid_config());
  auto buffers = flatten_trainable([&](const ParameterVisitor& v) { model->visit(v); },
                                   [&](const std::string& name) { return name.find(trained) != std::string::npos; });
  zero_gradients(buffers[0]);
  for (const std::vector<int>& lengths : {std::vector<int>{5, 9}, std::vector<int>{8}}) {
    loss_of(*model, random_batch(lengths), recompute, taps).backward();
  }
  std::map<std::string, at::Tensor> result;
  for (const auto& piece : buffers[0].pieces) result[piece.name] = piece.value.grad().clone();
  return result;
}

class EachRecompute : public testing::TestWithParam<Recompute> {};
INSTANTIATE_TEST_SUITE_P(Recomputed, EachRecompute, testing::Values(Recompute::mixer, Recompute::block));

TEST_P(EachRecompute, GradientsAreTheSameBitForBit) {
  for (const std::string trained : {"", "mixers.mamba", "layers.2.mlp", "layers.0.mixer"}) {
    const auto expected = gradients_with(Recompute::none, trained);
    const auto found = gradients_with(GetParam(), trained);
    ASSERT_FALSE(found.empty());
    for (const auto& [name, gradient] : expected) {
      EXPECT_TRUE(at::equal(gradient, found.at(name))) << name;
      EXPECT_GT(gradient.abs().max().item<float>(), 0) << name;
    }
  }
}

TEST_P(EachRecompute, TapsStayPartOfTheGraph) {
  Taps taps;
  taps.wanted = {"layers.1.mixer.output"};
  const auto expected = gradients_with(Recompute::none, "");
  const auto found = gradients_with(GetParam(), "", &taps);
  for (const auto& [name, gradient] : expected) EXPECT_TRUE(at::equal(gradient, found.at(name))) << name;
  EXPECT_TRUE(taps.found.at("layers.1.mixer.output").requires_grad());
}

TEST(Recomputed, KeepsOnlyItsInput) {
  const at::Tensor input = at::ones({2}).set_requires_grad(true);
  int calls = 0;
  const auto body = [&](const at::Tensor& x) {
    ++calls;
    return x.square();
  };
  const at::Tensor output = recomputed(body, input, {});
  EXPECT_EQ(calls, 1);
  output.sum().backward();
  EXPECT_EQ(calls, 2);
  EXPECT_TRUE(at::equal(input.grad(), at::full({2}, 2.0f)));
}

TEST(Linear, NamesItsRowSections) {
  Linear linear(3, {{"q", 4}, {"k", 2}, {"v", 2}}, true);
  linear.weight = at::arange(24, at::kFloat).view({8, 3});
  linear.bias = at::arange(8, at::kFloat);
  EXPECT_EQ(linear.rows("k"), (std::pair<std::int64_t, std::int64_t>{4, 6}));
  EXPECT_TRUE(at::equal(linear.section_weight("v"), linear.weight.slice(0, 6, 8)));
  EXPECT_TRUE(at::equal(linear.section_bias("q"), linear.bias.slice(0, 0, 4)));
  EXPECT_THROW(linear.rows("z"), std::logic_error);
  const at::Tensor input = at::ones({2, 3});
  EXPECT_LT(difference(linear.forward(input), linear.forward_without_bias(input) + linear.bias), 1e-6);
  EXPECT_EQ(linear.forward(input)[1][7].item<float>(), 21 + 22 + 23 + 7);
}

}  // namespace parameters_test

}  // namespace molt::test
