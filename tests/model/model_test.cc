#include "model/model.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <ostream>
#include <set>

#include "base/error.h"
#include "model/mixers/attention/attention.h"
#include "model/mixers/mamba/mamba.h"
#include "model/support.h"
#include "support/error_of.h"

namespace molt::test {

namespace model_test {

struct Named {
  std::string name;
  std::vector<BlockConfig> blocks;
};

void PrintTo(const Named& named, std::ostream* out) {
  *out << named.name;
}

class EachMixer : public testing::TestWithParam<Named> {};

INSTANTIATE_TEST_SUITE_P(Mixers, EachMixer,
                         testing::Values(Named{"attention", {attention_block(), attention_block()}},
                                         Named{"window", {window_block(), window_block(1)}},
                                         Named{"normed", {normed_block(), normed_block()}},
                                         Named{"mamba_repeated_before", {mamba_block(true), mamba_block(true)}},
                                         Named{"mamba_repeated_after", {mamba_block(false), mamba_block(false)}},
                                         Named{"hybrid", hybrid_config().blocks}),
                         [](const auto& info) { return info.param.name; });

TEST_P(EachMixer, PackedEqualsSeparate) {
  const auto model = new_model(small_config(GetParam().blocks));
  const PackedBatch batch = random_batch({5, 1, 12, 2});
  const at::Tensor packed = model->forward(batch);
  for (std::int64_t i = 0; i < batch.sequences.count(); ++i) {
    const at::Tensor alone = model->forward(PackedBatch::of({{tokens_of(batch, i), {}}}));
    EXPECT_LT(difference(packed.narrow(0, batch.sequences.offsets[i], batch.sequences.length(i)), alone), 2e-5) << i;
  }
}

TEST_P(EachMixer, LaterTokensChangeNothing) {
  const auto model = new_model(small_config(GetParam().blocks));
  PackedBatch batch = random_batch({9});
  const at::Tensor before = model->forward(batch);
  batch.tokens[8] = (batch.tokens[8].item<std::int64_t>() + 1) % 40;
  const at::Tensor after = model->forward(batch);
  EXPECT_LT(difference(before.narrow(0, 0, 8), after.narrow(0, 0, 8)), 1e-6);
  EXPECT_GT(difference(before, after), 1e-3);
}

TEST_P(EachMixer, ExtendingByTokenEqualsForward) {
  const auto model = new_model(small_config(GetParam().blocks));
  const PackedBatch batch = random_batch({11, 11});
  const at::Tensor whole = model->forward(batch);
  TestCaches caches(*model, 2, 11);
  for (std::int64_t i = 0; i < 11; ++i) {
    const at::Tensor step = caches.extend(*model, {{tokens_of(batch, 0)[i]}, {tokens_of(batch, 1)[i]}});
    EXPECT_LT(difference(step[0], whole[i]), 2e-5) << i;
    EXPECT_LT(difference(step[1], whole[11 + i]), 2e-5) << i;
  }
}

// Chunks of any length, none among them, side by side.
TEST_P(EachMixer, ExtendingByChunksEqualsForward) {
  const auto model = new_model(small_config(GetParam().blocks));
  const PackedBatch batch = random_batch({13, 6, 9});
  const at::Tensor whole = model->forward(batch);
  TestCaches caches(*model, 3, 13);
  const std::vector<std::vector<std::int64_t>> chunks{{5, 1, 2}, {1, 0, 1}, {1, 1, 1}, {2, 4, 5}, {4, 0, 0}};
  std::vector<std::int64_t> done(3, 0);
  for (const auto& chunk : chunks) {
    std::vector<std::vector<std::int32_t>> fresh;
    std::vector<at::Tensor> expected;
    for (std::int64_t i = 0; i < 3; ++i) {
      const auto tokens = tokens_of(batch, i);
      fresh.emplace_back(tokens.begin() + done[i], tokens.begin() + done[i] + chunk[i]);
      expected.push_back(whole.narrow(0, batch.sequences.offsets[i] + done[i], chunk[i]));
      done[i] += chunk[i];
    }
    EXPECT_LT(difference(caches.extend(*model, fresh), at::cat(expected)), 2e-5);
  }
}

// Derivatives of a random projection of the logits along a random direction of each parameter, by central differences.
TEST_P(EachMixer, GradientsMatchDifferences) {
  const auto model = new_model(small_config(GetParam().blocks), at::kDouble);
  const PackedBatch batch = random_batch({6, 1, 4});
  auto buffers = flatten_trainable([&](const ParameterVisitor& v) { model->visit(v); }, [](const std::string&) { return true; });
  ASSERT_EQ(buffers.size(), 1u);
  zero_gradients(buffers[0]);
  at::manual_seed(5);
  const at::Tensor weights = at::randn({11, 40}, at::kDouble);
  const auto loss = [&] { return (model->logits(model->forward(batch)) * weights).sum(); };
  loss().backward();

  c10::AutoGradMode no_recording(false);
  for (const auto& piece : buffers[0].pieces) {
    const at::Tensor direction = at::randn_like(piece.value);
    const double slope = (piece.value.grad() * direction).sum().item<double>();
    constexpr double step = 1e-6;
    piece.value.add_(direction, step);
    const double above = loss().item<double>();
    piece.value.sub_(direction, 2 * step);
    const double below = loss().item<double>();
    piece.value.add_(direction, step);
    const double expected = (above - below) / (2 * step);
    EXPECT_NEAR(slope, expected, 1e-6 * (1 + std::abs(expected))) << piece.name;
  }
}

TEST(Model, ThreadCountChangesNothingThatMatters) {
  const auto model = new_model(hybrid_config());
  const PackedBatch batch = random_batch({30, 40, 10});
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const at::Tensor one = model->forward(batch);
  at::set_num_threads(std::max(threads, 2));
  const at::Tensor several = model->forward(batch);
  at::set_num_threads(threads);
  EXPECT_LT(difference(one, several), 1e-5);
}

TEST(Model, NamesEveryParameterOnce) {
  ModelConfig config = small_config({attention_block(), mamba_block()});
  const auto model = new_model(config);
  std::vector<std::string> names;
  for (const Parameter& parameter : model->parameters()) names.push_back(parameter.name);
  const std::vector<std::string> expected{"embedding.weight",
                                          "layers.0.mixers.attention.qkv.weight",
                                          "layers.0.mixers.attention.o_proj.weight",
                                          "layers.0.mixer_norm.weight",
                                          "layers.0.mlp_norm.weight",
                                          "layers.0.mlp.gate_up.weight",
                                          "layers.0.mlp.down.weight",
                                          "layers.1.mixers.mamba.in_proj.weight",
                                          "layers.1.mixers.mamba.dt_in_proj.weight",
                                          "layers.1.mixers.mamba.dt_proj.weight",
                                          "layers.1.mixers.mamba.dt_proj.bias",
                                          "layers.1.mixers.mamba.conv1d.weight",
                                          "layers.1.mixers.mamba.conv1d.bias",
                                          "layers.1.mixers.mamba.A_log",
                                          "layers.1.mixers.mamba.D",
                                          "layers.1.mixers.mamba.out_proj.weight",
                                          "layers.1.mixer_norm.weight",
                                          "layers.1.mlp_norm.weight",
                                          "layers.1.mlp.gate_up.weight",
                                          "layers.1.mlp.down.weight",
                                          "final_norm.weight",
                                          "head.weight"};
  EXPECT_EQ(names, expected);

  config.tied_embeddings = true;
  const auto tied = new_model(config);
  EXPECT_EQ(tied->parameters().size(), expected.size() - 1);
  EXPECT_TRUE(tied->head_weight().is_same(tied->embedding));
}

TEST(Model, NewWeightsDependOnTheSeedAlone) {
  const int threads = at::get_num_threads();
  const auto first = new_model(hybrid_config());
  at::set_num_threads(1);
  const auto again = new_model(hybrid_config());
  at::set_num_threads(threads);
  const auto other = new_model(hybrid_config(), at::kFloat, 2);
  const auto a = first->parameters(), b = again->parameters(), c = other->parameters();
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(at::equal(a[i].value, b[i].value)) << a[i].name;
  EXPECT_FALSE(at::equal(a[0].value, c[0].value));
  EXPECT_FALSE(at::equal(first->blocks[1].gate_up.weight, first->blocks[2].gate_up.weight));
}

TEST(Model, CastsAllButWhatStaysInFp32) {
  const auto model = new_model(hybrid_config(), at::kBFloat16);
  std::set<std::string> fp32;
  for (const Parameter& parameter : model->parameters()) {
    if (parameter.value.scalar_type() == at::kFloat) fp32.insert(parameter.name);
  }
  const std::set<std::string> expected{"layers.1.mixers.mamba.A_log", "layers.1.mixers.mamba.D", "layers.3.mixers.mamba.A_log",
                                       "layers.3.mixers.mamba.D"};
  EXPECT_EQ(fp32, expected);
  const PackedBatch batch = random_batch({7, 3});
  const at::Tensor low = model->forward(batch);
  EXPECT_EQ(low.scalar_type(), at::kBFloat16);
  model->to(at::kCPU, at::kFloat);
  EXPECT_LT(difference(low, model->forward(batch)), 0.15);
}

TEST(Model, SharesStorage) {
  const auto teacher = new_model(hybrid_config());
  const auto student = teacher->share();
  const auto a = teacher->parameters(), b = student->parameters();
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_EQ(a[i].value.const_data_ptr(), b[i].value.const_data_ptr()) << a[i].name;

  flatten_trainable([&](const ParameterVisitor& v) { student->visit(v); },
                    [](const std::string& name) { return name.find("mixers.mamba") != std::string::npos; });
  for (const Parameter& parameter : teacher->parameters()) EXPECT_FALSE(parameter.value.requires_grad());
  EXPECT_EQ(student->embedding.const_data_ptr(), teacher->embedding.const_data_ptr());
  auto& mamba = dynamic_cast<MambaMixer&>(student->blocks[1].mixer());
  EXPECT_NE(mamba.D.const_data_ptr(), dynamic_cast<MambaMixer&>(teacher->blocks[1].mixer()).D.const_data_ptr());
  EXPECT_TRUE(mamba.D.requires_grad());
}

TEST(Model, SharesItsWeightsInEightBits) {
  const c10::NoGradGuard no_grad;
  ModelConfig config = hybrid_config();
  config.hidden_size = 32;  // products of eight bits have multiples of 16
  const auto model = new_model(config);
  const PackedBatch batch = random_batch({7, 12});
  const at::Tensor whole = model->forward(batch);
  model->to_fp8();
  const at::Tensor narrow = model->forward(batch);
  ASSERT_GT(difference(narrow, whole), 0) << "none of its projections is large enough";
  const std::unique_ptr<Model> copy = model->share()->share();
  EXPECT_TRUE(at::equal(copy->forward(batch), narrow));
}

TEST(Model, ReplacesAMixer) {
  const auto model = new_model(small_config({attention_block(), attention_block()}));
  const auto other = new_model(small_config({mamba_block()}));
  const at::Tensor before = model->forward(random_batch({5}));
  auto mixer = mixer_kind("mamba", "test").make(mamba_block().mixer(), model->config());
  mixer->initialise({});
  model->set_mixer(1, "mamba", std::move(mixer));
  EXPECT_EQ(model->config().layout(), (std::vector<std::string>{"t", "m2"}));
  EXPECT_GT(difference(before, model->forward(random_batch({5}))), 1e-3);
  model->activate(1, "attention");
  EXPECT_EQ(model->config().layout(), (std::vector<std::string>{"t", "t"}));
  EXPECT_EQ(difference(before, model->forward(random_batch({5}))), 0);
  EXPECT_EQ(model->share()->parameters().size(), model->parameters().size());
  model->drop_inactive();
  for (const Parameter& parameter : model->parameters()) EXPECT_EQ(parameter.name.find("mamba"), std::string::npos);
}

TEST(Model, BypassesABlockOrAMixer) {
  const auto model = new_model(small_config({attention_block(), mamba_block()}));
  const auto shorter = new_model(small_config({attention_block()}));
  std::vector<Parameter> kept = model->parameters();
  shorter->visit([&](const std::string& name, at::Tensor& value) {
    for (const Parameter& parameter : kept) {
      if (parameter.name == name) value = parameter.value;
    }
  });
  const PackedBatch batch = random_batch({6, 2});
  model->blocks[1].bypass = Bypass::block;
  EXPECT_EQ(difference(model->forward(batch), shorter->forward(batch)), 0);

  model->blocks[1].bypass = Bypass::mixer;
  const at::Tensor bypassed = model->forward(batch);
  dynamic_cast<MambaMixer&>(model->blocks[1].mixer()).out_proj.weight.zero_();
  model->blocks[1].bypass = Bypass::none;
  EXPECT_LT(difference(bypassed, model->forward(batch)), 1e-6);
}

TEST(Model, IdentityBlockHasNothing) {
  BlockConfig identity;
  identity.identity = true;
  const auto model = new_model(small_config({attention_block(), identity}));
  const auto shorter = new_model(small_config({attention_block()}));
  EXPECT_EQ(model->config().layout(), (std::vector<std::string>{"t", "i"}));
  EXPECT_EQ(model->parameters().size(), shorter->parameters().size());
  EXPECT_EQ(difference(model->forward(random_batch({6})), shorter->forward(random_batch({6}))), 0);
  EXPECT_EQ(model->flops(10), shorter->flops(10));
  TestCaches caches(*model, 1, 6);
  EXPECT_LT(difference(caches.extend(*model, {{1, 2, 3}}), shorter->forward(PackedBatch::of({{{1, 2, 3}, {}}}))), 2e-5);
}

TEST(Model, TapsNamedActivations) {
  const auto model = new_model(hybrid_config());
  const PackedBatch batch = random_batch({4, 3});
  Taps taps;
  taps.wanted = {"layers.1.input", "layers.1.mixer.input", "layers.1.mixer.output", "layers.0.output",
                 "final",          "layers.10.input"};
  const at::Tensor hidden = model->forward(batch, Recompute::none, &taps);
  ASSERT_EQ(taps.found.size(), 5u);
  EXPECT_EQ(difference(taps.found["final"], hidden), 0);
  EXPECT_EQ(difference(taps.found["layers.0.output"], taps.found["layers.1.input"]), 0);
  const at::Tensor again = model->blocks[1].mixer().forward(taps.found["layers.1.mixer.input"], batch);
  EXPECT_EQ(difference(again, taps.found["layers.1.mixer.output"]), 0);
}

// hidden 24; attention: qkv 64 x 24, o 24 x 32; MLP 3 x 40 x 24; head 40 x 24; Mamba: in_proj 96 x 24, dt 3 x 24 + 32 x 3,
// out_proj 24 x 32, convolution 32 x 4, 32 channels of 4 states.
TEST(Model, CountsOperations) {
  const double mlp = 2 * 3 * 40 * 24, head = 2 * 40 * 24;
  const double attention = 2 * (64 * 24 + 24 * 32);
  EXPECT_EQ(Model(small_config({attention_block()})).flops(100), head + mlp + attention + 4 * 32 * 100);
  EXPECT_EQ(Model(small_config({window_block(3)})).flops(100), head + mlp + attention + 4 * 32 * 3);
  const double mamba = 2 * (96 * 24 + 3 * 24 + 32 * 3 + 24 * 32 + 32 * 4) + 7 * 32 * 4 + 4 * 32;
  EXPECT_EQ(Model(small_config({mamba_block(true)})).flops(100), head + mlp + mamba);
  EXPECT_EQ(Model(small_config({mamba_block(false)})).flops(7), head + mlp + mamba - 2 * 16 * 4);
}

TEST(Model, SpecifiesItsCaches) {
  const Model model(small_config({attention_block(), mamba_block()}));
  const auto spec = model.cache_spec();
  ASSERT_EQ(spec.size(), 2u);
  EXPECT_EQ(spec[0][0].name, "key");
  EXPECT_EQ(spec[0][1].shape, (std::vector<std::int64_t>{2, 8}));
  EXPECT_EQ(spec[0][1].per, CacheEntry::Per::token);
  EXPECT_EQ(spec[0][1].bytes(), 64);
  EXPECT_EQ(spec[1][0].name, "conv");
  EXPECT_EQ(spec[1][0].shape, (std::vector<std::int64_t>{16, 3}));
  EXPECT_EQ(spec[1][1].name, "state");
  EXPECT_EQ(spec[1][1].shape, (std::vector<std::int64_t>{32, 4}));
  EXPECT_EQ(spec[1][1].per, CacheEntry::Per::sequence);
  EXPECT_EQ(spec[1][1].bytes(), 512);
}

std::string error_of(const ModelConfig& config) {
  return molt::error_of([&] { Model model(config); });
}

TEST(Model, RefusesSettingsThatMakeNoModel) {
  ModelConfig config = small_config({attention_block(), attention_block()});
  config.hidden_size = 0;
  EXPECT_EQ(error_of(config), "hidden_size: found 0, expected at least 1");

  config = small_config({attention_block()});
  auto attention = std::make_shared<AttentionConfig>();
  attention->heads = 4;
  attention->head_groups = 3;
  attention->head_size = 8;
  config.blocks.push_back(attention_block().with_mixer(attention));
  EXPECT_EQ(error_of(config), "layer 1: mixer attention: head_groups: found 3, expected a divisor of heads 4");

  auto mamba = std::make_shared<MambaConfig>();
  mamba->d_inner = 32;
  config.blocks[1] = mamba_block().with_mixer(mamba);
  EXPECT_EQ(error_of(config), "layer 1: mixer mamba: d_xb: found 0, expected a positive multiple of state_size 16");
}

}  // namespace model_test

}  // namespace molt::test
