#include "distill/convert.h"

#include <gtest/gtest.h>

#include "distill/support.h"
#include "model/mixers/mamba/mamba.h"

namespace molt::convert_test {

using namespace distill_test;

TEST(Convert, NormsAndMlpStayTheStudentsAndShareItsStorage) {
  const auto teacher = new_teacher();
  const auto student = teacher->share();
  convert_layers(*student, *teacher, {1, 3}, mamba(), 1, "--layers");
  EXPECT_EQ(student->config().layout(), (std::vector<std::string>{"t", "m2", "t", "m2"}));
  EXPECT_EQ(attention_layers(student->config()), (std::vector<std::int64_t>{0, 2}));
  for (const char* name : {"layers.1.mixer_norm.weight", "layers.1.mlp_norm.weight", "layers.1.mlp.gate_up.weight",
                           "layers.3.mlp.down.weight", "layers.0.mixers.attention.qkv.weight", "embedding.weight"}) {
    EXPECT_EQ(parameter(*student, name).const_data_ptr(), parameter(*teacher, name).const_data_ptr()) << name;
  }
  EXPECT_FALSE(parameter(*student, "layers.1.mixers.attention.qkv.weight").defined());
  EXPECT_TRUE(parameter(*student, "layers.1.mixers.mamba.in_proj.weight").defined());
  EXPECT_EQ(attention_layers(teacher->config()).size(), 4u);
}

TEST(Convert, WeightsComeFromTheTeacherAlsoWhenTheStudentHasMovedOn) {
  const auto teacher = new_teacher(4, 1);
  const auto student = new_teacher(4, 2);
  convert_layers(*student, *teacher, {2}, mamba(), 1, "--layers");
  const auto& mixer = dynamic_cast<const MambaMixer&>(student->blocks[2].mixer());
  const at::Tensor qkv = parameter(*teacher, "layers.2.mixers.attention.qkv.weight");
  EXPECT_EQ(difference(mixer.in_proj.section_weight("C"), qkv.narrow(0, 0, 32)), 0);
  EXPECT_EQ(difference(mixer.in_proj.section_weight("B"), qkv.narrow(0, 32, 16)), 0);
  EXPECT_EQ(difference(mixer.in_proj.section_weight("x"), qkv.narrow(0, 48, 16)), 0);
}

TEST(Convert, ALayersNewWeightsAreAFunctionOfSeedAndLayerAlone) {
  const auto teacher = new_teacher();
  const auto converted = [&](std::vector<std::int64_t> layers, std::uint64_t seed) {
    auto student = teacher->share();
    convert_layers(*student, *teacher, layers, mamba(), seed, "--layers");
    return parameter(*student, "layers.3.mixers.mamba.dt_proj.bias").clone();
  };
  EXPECT_EQ(difference(converted({3}, 1), converted({0, 3, 1}, 1)), 0);
  EXPECT_GT(difference(converted({3}, 1), converted({3}, 2)), 0);
}

TEST(Convert, TheConfigurationIsKnownBeforehand) {
  const auto teacher = new_teacher();
  const auto student = teacher->share();
  convert_layers(*student, *teacher, {0, 2}, mamba(), 1, "--layers");
  EXPECT_EQ(to_yaml(converted_config(teacher->config(), {0, 2}, mamba(), "x")), to_yaml(student->config()));
}

TEST(Convert, MistakesAreNamedAndNothingChanges) {
  const auto teacher = new_teacher();
  const auto student = teacher->share();
  const auto message = [&](std::vector<std::int64_t> layers, const TargetMixerConfig& target = mamba()) {
    return error_of([&] { convert_layers(*student, *teacher, layers, target, 1, "--layers"); });
  };
  EXPECT_EQ(message({1, 4}), "--layers: found layer 4, expected 0 to 3");
  EXPECT_EQ(message({1, -1}), "--layers: found layer -1, expected 0 to 3");
  EXPECT_EQ(message({1, 2, 1}), "--layers: layer 1 is named twice");
  TargetMixerConfig wide = mamba();
  dynamic_cast<MambaConfig&>(*wide.settings).d_inner = 64;
  EXPECT_NE(message({1}, wide).find("--layers: layer 1: mixer mamba: d_inner: found 64, expected 32"), std::string::npos)
      << message({1}, wide);
  EXPECT_EQ(attention_layers(student->config()).size(), 4u);
  EXPECT_EQ(message({1}), "");
  EXPECT_EQ(message({1}), "--layers: layer 1 is mamba already, expected attention");
  const auto longer = new_teacher(5);
  EXPECT_EQ(error_of([&] { convert_layers(*student, *longer, {0}, mamba(), 1, "--layers"); }),
            "--layers: the model has 4 layers and its teacher 5, expected the same");
}

TEST(Convert, ACopyOfTheSettingsDoesNotChangeWithThem) {
  TargetMixerConfig first = TargetMixerConfig::of("mamba");
  TargetMixerConfig second = first;
  parse_config("{type: mamba, state_size: 4}", "x", {}, [&](ConfigVisitor& v) { second.visit(v); });
  EXPECT_EQ(dynamic_cast<const MambaConfig&>(*first.settings).state_size, 16);
  EXPECT_EQ(dynamic_cast<const MambaConfig&>(*second.settings).state_size, 4);
}

}  // namespace molt::convert_test
