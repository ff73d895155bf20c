// Low-rank adapters in a whole model: what they compute, in every way that a model computes, and what shares and trains with
// them.
#include "model/linear.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "model/initialise.h"
#include "model/support.h"

namespace molt::test {

namespace linear_adapters {

ParameterVisitor each_linear(const std::function<void(const std::string&, Linear&)>& visit) {
  return ParameterVisitor::of_linears(visit);
}

// Random adapters on every section of every projection of the layers.
void adapt(Model& model, at::ScalarType dtype = at::kFloat) {
  std::uint64_t seed = 1;
  model.visit(each_linear([&](const std::string& name, Linear& linear) {
    if (name == "head") return;
    for (const Linear::Section& section : linear.sections()) {
      const at::Tensor A = random_normal({3, linear.in()}, 0.3, seed++), B = random_normal({section.rows, 3}, 0.3, seed++);
      linear.adapters.push_back({section.name, A.to(dtype), B.to(dtype), 0.5});
    }
  }));
}

std::unique_ptr<Model> merged(const Model& model) {
  std::unique_ptr<Model> copy = model.share();
  copy->visit(each_linear([](const std::string&, Linear& linear) {
    linear.weight = linear.merged_weight();
    linear.adapters.clear();
  }));
  return copy;
}

ModelConfig every_kind() {
  ModelConfig config = hybrid_config();
  config.blocks.push_back(normed_block());
  return config;
}

TEST(Adapters, ComputeWhatMergedWeightsDo) {
  const auto model = new_model(every_kind());
  const PackedBatch batch = random_batch({9, 1, 4});
  const at::Tensor without = model->forward(batch);
  adapt(*model);
  const at::Tensor with = model->forward(batch);
  EXPECT_GT(difference(with, without), 0.1);
  EXPECT_LT(difference(with, merged(*model)->forward(batch)), 1e-5);
  EXPECT_EQ(difference(with, model->share()->forward(batch)), 0);
}

TEST(Adapters, ExtendingEqualsForward) {
  const auto model = new_model(every_kind());
  adapt(*model);
  const PackedBatch batch = random_batch({8});
  const at::Tensor whole = model->forward(batch);
  const std::vector<std::int32_t> tokens = tokens_of(batch, 0);
  TestCaches caches(*model, 1, 8);
  EXPECT_LT(difference(caches.extend(*model, {{tokens.begin(), tokens.begin() + 5}}), whole.narrow(0, 0, 5)), 2e-5);
  for (std::int64_t i = 5; i < 8; ++i) EXPECT_LT(difference(caches.extend(*model, {{tokens[i]}})[0], whole[i]), 2e-5) << i;
}

TEST(Adapters, AloneTrainWhenTheyAreChosen) {
  for (const Recompute recompute : {Recompute::none, Recompute::mixer, Recompute::block}) {
    const auto model = new_model(every_kind());
    adapt(*model);
    std::map<std::string, const void*> places;
    for (const Parameter& parameter : model->parameters()) places[parameter.name] = parameter.value.const_data_ptr();
    auto buffers = flatten_trainable([&](const ParameterVisitor& visitor) { model->visit(visitor); }, is_adapter);
    zero_gradients(buffers.at(0));
    model->logits(model->forward(random_batch({6, 3}), recompute)).square().sum().backward();
    for (const Parameter& parameter : model->parameters()) {
      if (is_adapter(parameter.name)) {
        EXPECT_GT(parameter.value.grad().abs().max().item<float>(), 0) << parameter.name;
      } else {
        EXPECT_FALSE(parameter.value.requires_grad()) << parameter.name;
        EXPECT_EQ(parameter.value.const_data_ptr(), places[parameter.name]) << parameter.name;
      }
    }
  }
}

TEST(Adapters, AreNamedAfterTheirSections) {
  const auto model = new_model(hybrid_config());
  adapt(*model);
  std::set<std::string> names;
  for (const Parameter& parameter : model->parameters()) names.insert(parameter.name);
  for (const char* name : {"layers.0.mixers.attention.qkv.q.lora_A", "layers.0.mlp.down.lora_B", "layers.1.mlp.gate_up.up.lora_B",
                           "layers.1.mixers.mamba.in_proj.C.lora_A"}) {
    EXPECT_TRUE(names.contains(name)) << name;
  }
}

}  // namespace linear_adapters

}  // namespace molt::test
