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

TEST(Convert, ARestoredLayerIsTheTeachersAttentionUnderTheStudentsNormsAndMlp) {
  const auto teacher = new_teacher(4, 1);
  const auto student = new_teacher(4, 2);
  convert_layers(*student, *teacher, {0, 1, 2, 3}, mamba(), 1, "--layers");
  const ModelConfig foretold = restored_config(student->config(), teacher->config(), {2, 0}, "--restore");
  restore_layers(*student, *teacher, {2, 0}, "--restore");
  EXPECT_EQ(student->config().layout(), (std::vector<std::string>{"t", "m2", "t", "m2"}));
  EXPECT_EQ(to_yaml(foretold), to_yaml(student->config()));
  EXPECT_EQ(parameter(*student, "layers.2.mixers.attention.qkv.weight").const_data_ptr(),
            parameter(*teacher, "layers.2.mixers.attention.qkv.weight").const_data_ptr());
  EXPECT_FALSE(parameter(*student, "layers.2.mixers.mamba.in_proj.weight").defined());
  EXPECT_GT(difference(parameter(*student, "layers.2.mlp.down.weight"), parameter(*teacher, "layers.2.mlp.down.weight")), 0);

  // All of a converted teacher restored is the teacher again, its rotary positions included.
  const auto back = teacher->share();
  convert_layers(*back, *teacher, {0, 1, 2, 3}, mamba(), 1, "--layers");
  restore_layers(*back, *teacher, {0, 1, 2, 3}, "--restore");
  const PackedBatch batch = random_batch({9, 5});
  EXPECT_EQ(difference(back->forward(batch), teacher->forward(batch)), 0);
}

TEST(Convert, MistakesOfRestoringAreNamedAndNothingChanges) {
  const auto teacher = new_teacher();
  const auto student = teacher->share();
  convert_layers(*student, *teacher, {1, 3}, mamba(), 1, "--layers");
  const auto message = [&](std::vector<std::int64_t> layers) {
    return error_of([&] { restore_layers(*student, *teacher, layers, "--restore"); });
  };
  EXPECT_EQ(message({1, 4}), "--restore: found layer 4, expected 0 to 3");
  EXPECT_EQ(message({1, 1}), "--restore: layer 1 is named twice");
  EXPECT_EQ(message({1, 2}), "--restore: layer 2 is attention already, expected one that was converted");
  EXPECT_EQ(error_of([&] { restore_layers(*student, *student, {1}, "--restore"); }),
            "--restore: layer 1 of the teacher is no attention layer to take weights from");
  EXPECT_EQ(attention_layers(student->config()), (std::vector<std::int64_t>{0, 2}));
}

TEST(Convert, RandomInitialisationTakesNothingAndAnySizes) {
  const auto teacher = new_teacher();
  TargetMixerConfig target = TargetMixerConfig::of("mamba");
  parse_config("{initialisation: random, d_inner: 48, d_xb: 12, state_size: 6, dt_rank: 3}", "mamba", {},
               [&](ConfigVisitor& v) { target.settings->visit(v); });
  const auto student = teacher->share();
  convert_layers(*student, *teacher, {1}, target, 1, "--layers");
  const auto& mixer = dynamic_cast<const MambaMixer&>(student->blocks[1].mixer());
  EXPECT_EQ(mixer.A_log.sizes(), (at::IntArrayRef{48, 6}));
  EXPECT_EQ(mixer.dt_in_proj.weight.size(0), 3);
  const PackedBatch batch = random_batch({9, 5});
  EXPECT_TRUE(student->forward(batch).isfinite().all().item<bool>());
  // A later training may give it any weights; these are not the teacher's.
  const at::Tensor values = parameter(*teacher, "layers.1.mixers.attention.qkv.weight").narrow(0, 48, 12);
  EXPECT_GT(difference(mixer.in_proj.section_weight("x"), values), 0.01);
}

TEST(Convert, StateSizesThatDivideTheSizesFitAndOthersAreRefused) {
  const auto teacher = new_teacher();  // heads of 8: q has 32 rows, k and v 16
  const auto message = [&](const std::string& settings) {
    TargetMixerConfig target = TargetMixerConfig::of("mamba");
    parse_config(settings, "mamba", {}, [&](ConfigVisitor& v) { target.settings->visit(v); });
    const auto student = teacher->share();
    return error_of([&] {
      convert_layers(*student, *teacher, {1}, target, 1, "--layers");
      const at::Tensor hidden = student->forward(random_batch({9, 5}));
      require(hidden.isfinite().all().item<bool>(), "not finite");
    });
  };
  for (const char* initialisation : {"published", "aligned"}) {
    for (const int state : {1, 2, 4, 8}) {
      EXPECT_EQ(message(concat("{dt_rank: ", state, ", state_size: ", state, ", initialisation: ", initialisation, "}")), "");
    }
  }
  EXPECT_EQ(message("{state_size: 16}"), "");  // a group of two heads
  EXPECT_EQ(message("{state_size: 16, initialisation: aligned}"),
            "--layers: layer 1: mixer mamba: state_size: found 16, expected a divisor of head_size 8, because aligned "
            "initialisation pairs whole slices of a head (or use initialisation: random)");
  EXPECT_EQ(message("{state_size: 6}"),
            "--layers: layer 1: mixer mamba: d_inner: found 32, expected a positive multiple of state_size 6");
  EXPECT_NE(message("{state_size: 0}").find("state_size: found 0, expected"), std::string::npos) << message("{state_size: 0}");
  EXPECT_NE(message("{dt_rank: 0}").find("dt_rank: found 0, expected"), std::string::npos) << message("{dt_rank: 0}");
}

TEST(Convert, ACopyOfTheSettingsDoesNotChangeWithThem) {
  TargetMixerConfig first = TargetMixerConfig::of("mamba");
  TargetMixerConfig second = first;
  parse_config("{type: mamba, state_size: 4}", "x", {}, [&](ConfigVisitor& v) { second.visit(v); });
  EXPECT_EQ(dynamic_cast<const MambaConfig&>(*first.settings).state_size, 16);
  EXPECT_EQ(dynamic_cast<const MambaConfig&>(*second.settings).state_size, 4);
}

}  // namespace molt::convert_test
