#include "train/config.h"

#include <gtest/gtest.h>

#include "train/support.h"

namespace molt {

namespace config_test {

TrainConfig parse(const std::string& text) {
  TrainConfig config;
  parse_config(text, "train.yaml", {}, [&](ConfigVisitor& v) { config.visit(v); });
  return config;
}

constexpr const char* published = R"(
model:
  base_model:
    head:
      distillation_model: teacher
      distillation_loss_implementation: reverse_kl
reference_models:
  teacher:
    pretrained:
      format: mistral
      path: path/to/Apriel-Nemotron-15b-Thinker
)";

}  // namespace config_test

using namespace config_test;

TEST(TrainConfig, ThePublishedFragmentOfADistillationIsAcceptedAsItStands) {
  const TrainConfig config = parse(published);
  const HeadConfig& head = config.model.base_model.head;
  EXPECT_TRUE(head.distills());
  EXPECT_EQ(head.mix().reverse_kl, 1.0);
  EXPECT_EQ(head.mix().forward_kl, 0.0);
  EXPECT_EQ(head.mix().cross_entropy, 0.0);
  EXPECT_EQ(head.mix().temperature, 1.0);
  EXPECT_EQ(config.reference_models.at("teacher").pretrained.format, "mistral");
  EXPECT_FALSE(config.model.pretrained.has_value());
}

TEST(TrainConfig, ANextTokenLossIsTheDefault) {
  const ops::LossMix mix = parse("model: {pretrained: {path: models/tiny-teacher}}").model.base_model.head.mix();
  EXPECT_EQ(mix.cross_entropy, 1.0);
  EXPECT_EQ(mix.reverse_kl + mix.forward_kl, 0.0);
}

TEST(TrainConfig, DivergencesAloneAndInAWeightedSum) {
  const auto mix = [](const std::string& head) {
    return parse("model: {base_model: {head: {distillation_model: teacher, distillation_loss_factor: 2, " + head +
                 "}}}\nreference_models: {teacher: {pretrained: {path: somewhere}}}")
        .model.base_model.head.mix();
  };
  EXPECT_EQ(mix("language_model_loss_factor: 0").forward_kl, 2.0);
  const ops::LossMix jsd = mix("distillation_loss_implementation: jsd, distillation_jsd_beta: 0.1");
  EXPECT_EQ(jsd.jsd, 2.0);
  EXPECT_EQ(jsd.beta, 0.1);
  EXPECT_EQ(jsd.reverse_kl + jsd.forward_kl, 0.0);
  const ops::LossMix sum = mix("distillation_loss_mix: {reverse_kl: 0.75, forward_kl: 0.25}");
  EXPECT_EQ(sum.reverse_kl, 1.5);
  EXPECT_EQ(sum.forward_kl, 0.5);
  EXPECT_EQ(sum.jsd, 0.0);
  EXPECT_THROW(mix("distillation_jsd_beta: 1"), UserError);
  EXPECT_THROW(mix("distillation_loss_mix: {reverse_kl: -1, jsd: 2}"), UserError);
  EXPECT_THROW(mix("distillation_loss_mix: {}"), UserError);
}

TEST(TrainConfig, TheTextOfAConfigurationReadsBackTheSame) {
  TrainConfig config = parse(published);
  config.training.trainable = {"layers.*", "!*norm*"};
  config.training.optimizer.learning_rate = 1.0 / 3;
  config.held_out["wiki"].tokens = 100;
  config.output = "runs/a";
  const std::string text = to_yaml(config);
  EXPECT_EQ(to_yaml(parse(text)), text);
  EXPECT_EQ(parse(text).training.optimizer.learning_rate, 1.0 / 3);
}

TEST(TrainConfig, MistakesAreNamed) {
  EXPECT_EQ(
      error_of([] { parse("model: {base_model: {head: {distillation_model: techer}}}\nreference_models: {teacher: {}}"); }),
      "train.yaml: model.base_model.head.distillation_model: found \"techer\", expected a name under reference_models (did you "
      "mean \"teacher\"?)");
  for (const char* wrong :
       {"training: {steps: 0}", "training: {optimizer: {beta2: 1}}", "training: {schedule: {final_fraction: 2}}",
        "training: {keep_checkpoints: 0}", "training: {recompute: all}", "held_out: {a: {tokens: 0}}",
        "model: {base_model: {head: {language_model_loss_factor: 0}}}"}) {
    EXPECT_TRUE(error_of([&] { parse(wrong); }).find("expected") != std::string::npos)
        << wrong << ": " << error_of([&] { parse(wrong); });
  }
}

TEST(TrainConfig, AModelNeedsExactlyOneOrigin) {
  const auto make = [](const char* text) {
    return error_of([&] { make_model(parse(text).model, 0, at::kCPU, at::kFloat, "train.yaml: model"); });
  };
  EXPECT_EQ(make("seed: 1"), "train.yaml: model: found neither pretrained nor base_model.decoder, expected one of them");
  EXPECT_EQ(make("model: {pretrained: {}}"), "train.yaml: model.pretrained.path: missing, expected a Hugging Face folder");
}

TEST(TrainConfig, AnInitialisedModelIsAFunctionOfTheSeed) {
  const TrainConfig config = parse(R"(
model:
  base_model:
    hidden_size: 16
    vocabulary: 20
    decoder:
      type: fixed
      num_blocks: 1
      block: {mixer: {type: attention, heads: 2, head_groups: 1, head_size: 8}, mlp: {intermediate_size: 24}}
)");
  const auto embedding = [&](std::uint64_t seed) { return make_model(config.model, seed, at::kCPU, at::kFloat, "t")->embedding; };
  EXPECT_TRUE(at::equal(embedding(1), embedding(1)));
  EXPECT_FALSE(at::equal(embedding(1), embedding(2)));
}

}  // namespace molt
