#include "distill/costs.h"

#include <ATen/Functions.h>
#include <gtest/gtest.h>

#include "distill/plan.h"
#include "distill/support.h"
#include "formats/safetensors.h"
#include "model/mixers/attention/attention.h"
#include "support/temporary_folder.h"

namespace molt::costs_test {

using namespace distill_test;

ModelConfig apriel() {
  return teacher_config(load_config<RecipeConfig>(fs::path(MOLT_SOURCE) / "recipes/apriel-h1.yaml"), "apriel");
}

TEST(Costs, OfThePublishedTeacher) {
  const ModelCosts costs = model_costs(apriel(), at::kBFloat16, 16384);
  EXPECT_NEAR(costs.parameters, 14.97e9, 0.005e9);
  EXPECT_EQ(costs.weight_bytes, 2 * costs.parameters);
  EXPECT_EQ(costs.cache_token_bytes, 204800);
  EXPECT_EQ(costs.state_bytes, 0);
  EXPECT_EQ(costs.parts.at("embedding"), 131072.0 * 5120);
  EXPECT_EQ(costs.parts.at("attention"), 50.0 * (6144 * 5120 + 5120 * 4096));
  EXPECT_EQ(costs.parts.at("norms"), 101.0 * 5120);
  double sum = 0;
  for (const auto& [part, count] : costs.parts) sum += count;
  EXPECT_EQ(sum, costs.parameters);
  EXPECT_EQ(costs.read_weight_bytes, costs.weight_bytes - 2.0 * 131072 * 5120);

  // 16,384 tokens take 3.36 GB beside 29.95 GB of weights: 14 sequences in 80 GB, whose keys and values then outweigh the
  // weights.
  EXPECT_EQ(largest_batch(costs, {}), 14);
  const DecodeCosts alone = decode_costs(costs, {}, 1), many = decode_costs(costs, {}, 14);
  EXPECT_EQ(alone.bound, "weights");
  EXPECT_NEAR(alone.tokens_per_second, 3.35e12 / (costs.read_weight_bytes + 204800.0 * 16384), 1e-6);
  EXPECT_EQ(many.bound, "cache");
  EXPECT_EQ(decode_costs(costs, {.flops = 1e12}, 14).bound, "products");
  EXPECT_EQ(largest_batch(costs, {.memory = 20e9}), 0);
}

TEST(Costs, OfItsHybrids) {
  const TargetMixerConfig target = TargetMixerConfig::of("mamba");
  const ModelConfig h30 = with_mamba_layers(apriel(), 30, target, "--mamba");
  EXPECT_EQ(attention_layers(h30).size(), 20u);
  const ModelCosts costs = model_costs(h30, at::kBFloat16, 16384);
  EXPECT_EQ(costs.cache_token_bytes, 204800 / 50 * 20);
  EXPECT_EQ(costs.state_bytes, 30.0 * (1024 * 3 * 2 + 4096 * 16 * 4));
  EXPECT_EQ(costs.weight_bytes, 2 * costs.parameters + 2.0 * 30 * (4096 * 16 + 4096));  // A_log and D are fp32
  EXPECT_GT(largest_batch(costs, {}), 30);

  const ModelConfig h40 = with_mamba_layers(h30, 40, target, "--mamba");
  EXPECT_EQ(attention_layers(h40).size(), 10u);
  EXPECT_EQ(
      decode_costs(model_costs(with_mamba_layers(apriel(), 50, target, "x"), at::kBFloat16, 16384), {.flops = 1e18}, 5000).bound,
      "states");
  EXPECT_EQ(error_of([&] { with_mamba_layers(h30, 29, target, "--mamba"); }),
            "--mamba: found 29, expected 30 to 50, of 50 layers");
  EXPECT_EQ(error_of([&] { with_mamba_layers(apriel(), 51, target, "--mamba"); }),
            "--mamba: found 51, expected 0 to 50, of 50 layers");
}

TEST(Costs, AWindowBoundsWhatIsReadAndNotWhatIsKept) {
  ModelConfig config = distill_test::teacher_config(2);
  auto window = std::make_shared<AttentionConfig>(true);
  window->heads = 4;
  window->head_groups = 2;
  window->head_size = 8;
  window->window = 10;
  config.blocks[1] = config.blocks[1].with_mixer(window);
  const ModelCosts costs = model_costs(config, at::kFloat, 100);
  EXPECT_EQ(costs.cache_token_bytes, 2 * 2 * 2 * 8 * 4);
  EXPECT_EQ(costs.read_cache_bytes, 2 * 2 * 8 * 4 * (100 + 10));
}

TEST(Costs, TheContextIsThatOfTheSamplesInTheFirstShard) {
  const TemporaryFolder folder;
  const auto write = [&](at::ArrayRef<std::int64_t> offsets) {
    write_safetensors(shard_path(folder.path(), 0), {{"tokens", at::zeros({400}, at::kInt)},
                                                     {"learn", at::ones({400}, at::kByte)},
                                                     {"offsets", at::tensor(offsets, at::kLong)}});
  };
  write({0, 100, 400});
  DataConfig data;
  data.path = folder.path().string();
  EXPECT_EQ(mean_context(data, 16384), (100 * 100 + 300 * 300) / 2 / 400);
  EXPECT_EQ(mean_context(data, 200), (100 * 100 + 200 * 200) / 2 / 300) << "what does not fit is cut";
  data.max_length = 50;
  EXPECT_EQ(mean_context(data, 16384), 25);

  DataConfig blend;
  blend.blend["here"].path = folder.path().string();
  blend.blend["problems"].synthetic.emplace();
  blend.blend["problems"].weight = 3;
  EXPECT_EQ(mean_context(blend, 16384), (125 + 3 * 64) / 4);

  data.path = (folder.path() / "later").string();
  EXPECT_EQ(mean_context(data, 16384), 25);
  data.max_length = 0;
  EXPECT_EQ(mean_context(data, 16384), 8192);
  EXPECT_EQ(mean_context(DataConfig(), 16384), 8192);

  write({0, 500, 400});
  EXPECT_THROW(mean_context(blend, 16384), UserError);
}

TEST(Costs, ShapesStandOncePerKind) {
  Model model(distill_test::teacher_config(4));
  const auto shapes = parameter_shapes(model);
  const auto found = std::find_if(shapes.begin(), shapes.end(),
                                  [](const ParameterShape& row) { return row.name == "layers.*.mixers.attention.qkv.weight"; });
  ASSERT_NE(found, shapes.end());
  EXPECT_EQ(found->count, 4);
  EXPECT_EQ(found->shape, (std::vector<std::int64_t>{64, 32}));
}

}  // namespace molt::costs_test
