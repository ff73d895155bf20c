#include "formats/config_json.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "model/mixers/attention/attention.h"
#include "model/mixers/mamba/mamba.h"
#include "support/error_of.h"

namespace molt {
namespace config_json_test {

Json mistral() {
  return Json::parse(
      R"({"architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_size": 64, "intermediate_size": 96,
    "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 24, "vocab_size": 50, "rms_norm_eps": 1e-05,
    "max_position_embeddings": 512, "rope_theta": 1000000.0, "sliding_window": null, "tie_word_embeddings": false})");
}

Json hybrid() {
  Json config = mistral();
  config["architectures"] = {"AprielHybridSSMForCausalLM"};
  config["model_type"] = "apriel_hybrid_ssm";
  config["hybrid_block_layout"] = {"t", "m2", "i"};
  config["ssm_cfg"] = {{"d_state", 8}, {"d_inner", 96}, {"d_xb", 48}, {"dt_rank", "auto"}, {"repeat_kv_before_conv", false}};
  return config;
}

Json qwen2() {
  Json config = mistral();
  config["architectures"] = {"Qwen2ForCausalLM"};
  config["model_type"] = "qwen2";
  config["sliding_window"] = 16;
  return config;
}

Json with(Json config, const std::string& pointer, const Json& value) {
  config[Json::json_pointer(pointer)] = value;
  return config;
}

Json without(Json config, const std::string& key) {
  config.erase(key);
  return config;
}

std::string error_of(const Json& config) {
  return molt::error_of([&] { parse_model_config(config, "config.json"); });
}

const AttentionConfig& attention(const ModelConfig& model, std::size_t layer) {
  return dynamic_cast<const AttentionConfig&>(model.blocks.at(layer).mixer());
}

using Letters = std::vector<std::string>;

TEST(ConfigJson, ReadsMistral) {
  const ModelConfig model = parse_model_config(mistral(), "config.json");
  EXPECT_EQ(model.hidden_size, 64);
  EXPECT_EQ(model.vocabulary, 50);
  EXPECT_EQ(model.max_positions, 512);
  EXPECT_EQ(model.norm_epsilon, 1e-5);
  EXPECT_EQ(model.rotary.base, 1e6);
  EXPECT_FALSE(model.tied_embeddings);
  EXPECT_EQ(model.layout(), (Letters{"t", "t", "t"}));
  EXPECT_EQ(attention(model, 0).heads, 4);
  EXPECT_EQ(attention(model, 0).head_groups, 2);
  EXPECT_EQ(attention(model, 0).head_size, 24);
  EXPECT_EQ(model.blocks[0].mlp.intermediate_size, 96);
}

TEST(ConfigJson, TakesWhatTransformersTakesForAbsentKeys) {
  const ModelConfig windowed = parse_model_config(without(mistral(), "sliding_window"), "config.json");
  EXPECT_EQ(windowed.layout(), (Letters{"swa", "swa", "swa"}));
  EXPECT_EQ(attention(windowed, 0).window, 4096);
  EXPECT_EQ(attention(parse_model_config(without(mistral(), "head_dim"), "c"), 0).head_size, 16);
  EXPECT_EQ(attention(parse_model_config(with(mistral(), "/num_key_value_heads", nullptr), "c"), 0).head_groups, 4);
  EXPECT_EQ(parse_model_config(without(mistral(), "architectures"), "c").num_layers(), 3);
  EXPECT_EQ(parse_model_config(without(mistral(), "rope_theta"), "c").rotary.base, 1e4);
  EXPECT_EQ(parse_model_config(without(mistral(), "rms_norm_eps"), "c").norm_epsilon, 1e-6);

  Json llama =
      with(with(without(mistral(), "num_key_value_heads"), "/model_type", "llama"), "/architectures", {"LlamaForCausalLM"});
  EXPECT_EQ(attention(parse_model_config(llama, "c"), 0).head_groups, 4);
  // Llama's own code knows no window.
  EXPECT_EQ(parse_model_config(with(llama, "/sliding_window", 16), "c").layout(), (Letters{"t", "t", "t"}));
}

TEST(ConfigJson, ReadsRotaryAsTransformersFiveWritesIt) {
  Json config = without(mistral(), "rope_theta");
  config["rope_parameters"] = {{"rope_theta", 5000.0}, {"rope_type", "default"}};
  EXPECT_EQ(parse_model_config(config, "c").rotary.base, 5000.0);
}

TEST(ConfigJson, ReadsScaledRotaryInBothForms) {
  const Json settings = {{"rope_type", "yarn"}, {"factor", 4.0}, {"beta_fast", 16}};
  Json modern = without(mistral(), "rope_theta");
  modern["rope_parameters"] = settings;
  modern["rope_parameters"]["rope_theta"] = 1e6;
  Json old = with(mistral(), "/rope_scaling", settings);
  for (const Json& config : {modern, old, with(with(modern, "/rope_theta", 5.0), "/rope_scaling", nullptr)}) {
    const RotaryConfig rotary = parse_model_config(config, "c").rotary;
    EXPECT_EQ(rotary.type, "yarn");
    EXPECT_EQ(rotary.base, 1e6);
    EXPECT_EQ(rotary.factor, 4);
    EXPECT_EQ(rotary.beta_fast, 16);
    EXPECT_EQ(rotary.original_positions, 512);  // max_position_embeddings
    EXPECT_FALSE(rotary.attention_factor);
  }
  EXPECT_EQ(parse_model_config(with(old, "/original_max_position_embeddings", 64), "c").rotary.original_positions, 64);
  EXPECT_EQ(parse_model_config(with(old, "/rope_scaling/original_max_position_embeddings", 32), "c").rotary.original_positions,
            32);
  // The ratio of the attention factors of both scales.
  Json scaled = with(with(old, "/rope_scaling/mscale", 0.5), "/rope_scaling/mscale_all_dim", 1.0);
  EXPECT_NEAR(*parse_model_config(scaled, "c").rotary.attention_factor, (0.05 * std::log(4.0) + 1) / (0.1 * std::log(4.0) + 1),
              1e-12);
}

TEST(ConfigJson, ReadsQwensWindowsAndBiases) {
  const ModelConfig plain = parse_model_config(qwen2(), "c");
  EXPECT_EQ(plain.layout(), (Letters{"t", "t", "t"}));
  EXPECT_TRUE(attention(plain, 0).qkv_bias);
  EXPECT_FALSE(attention(plain, 0).output_bias);
  Json windowed = with(with(qwen2(), "/use_sliding_window", true), "/max_window_layers", 1);
  EXPECT_EQ(parse_model_config(windowed, "c").layout(), (Letters{"t", "swa", "swa"}));
  EXPECT_EQ(attention(parse_model_config(windowed, "c"), 2).window, 16);
  windowed["layer_types"] = {"sliding_attention", "full_attention", "full_attention"};
  EXPECT_EQ(parse_model_config(windowed, "c").layout(), (Letters{"swa", "t", "t"}));

  Json qwen3 = with(with(without(qwen2(), "head_dim"), "/model_type", "qwen3"), "/architectures", {"Qwen3ForCausalLM"});
  EXPECT_EQ(attention(parse_model_config(qwen3, "c"), 0).head_size, 128);
  EXPECT_TRUE(attention(parse_model_config(qwen3, "c"), 0).qk_norm);
  EXPECT_FALSE(attention(parse_model_config(qwen3, "c"), 0).qkv_bias);
  EXPECT_TRUE(attention(parse_model_config(with(qwen3, "/attention_bias", true), "c"), 0).output_bias);
}

TEST(ConfigJson, ReadsHybrids) {
  const ModelConfig model = parse_model_config(hybrid(), "config.json");
  EXPECT_EQ(model.layout(), (Letters{"t", "m2", "i"}));
  EXPECT_TRUE(model.blocks[2].identity);
  const auto& mamba = dynamic_cast<const MambaConfig&>(model.blocks[1].mixer());
  EXPECT_EQ(mamba.d_inner, 96);
  EXPECT_EQ(mamba.d_xb, 48);
  EXPECT_EQ(mamba.state_size, 8);
  EXPECT_EQ(mamba.dt_rank, 4);  // "auto": hidden / 16
  EXPECT_EQ(mamba.d_conv, 4);
  EXPECT_FALSE(mamba.repeat_kv_before_conv);
  EXPECT_EQ(
      dynamic_cast<const MambaConfig&>(parse_model_config(with(hybrid(), "/ssm_cfg/d_xb", nullptr), "c").blocks[1].mixer()).d_xb,
      64);

  Json windowed = with(with(hybrid(), "/sliding_window", 16), "/hybrid_block_layout", {"t", "swa", "m2"});
  EXPECT_EQ(parse_model_config(windowed, "c").layout(), (Letters{"t", "swa", "m2"}));
  // Without the letter the published code gives every attention layer the window.
  EXPECT_EQ(parse_model_config(with(windowed, "/hybrid_block_layout", {"t", "t", "m2"}), "c").layout(),
            (Letters{"swa", "swa", "m2"}));
}

TEST(ConfigJson, RefusesWhatItCannotFollowInOneLine) {
  EXPECT_EQ(error_of(mistral()), "");
  const std::pair<Json, const char*> cases[] = {
      {with(mistral(), "/model_type", "gpt2"),
       "config.json: model_type: found \"gpt2\", expected one of mistral, llama, qwen2, qwen3, apriel_hybrid_ssm"},
      {without(mistral(), "model_type"), "model_type: missing"},
      {with(mistral(), "/architectures", {"MistralForSequenceClassification"}), "expected [\"MistralForCausalLM\"]"},
      {with(mistral(), "/hidden_size", -64), "hidden_size: found -64, expected 1 to"},
      {with(mistral(), "/hidden_size", "big"), "hidden_size: found \"big\", expected a whole number"},
      {with(mistral(), "/hidden_size", std::uint64_t{1} << 60), "hidden_size: found 1152921504606846976"},
      {without(mistral(), "vocab_size"), "vocab_size: missing"},
      {with(mistral(), "/num_hidden_layers", 1'000'000'000), "num_hidden_layers: found 1000000000"},
      {with(mistral(), "/num_attention_heads", 0), "num_attention_heads: found 0"},
      {with(mistral(), "/head_dim", -1), "head_dim: found -1"},
      {with(mistral(), "/rms_norm_eps", 0), "rms_norm_eps: found 0, expected a positive number"},
      {with(mistral(), "/hidden_act", "gelu"), "hidden_act: found \"gelu\", expected \"silu\""},
      {with(mistral(), "/attention_bias", true), "attention_bias: found true, expected false"},
      {with(mistral(), "/rope_scaling", {{"rope_type", "longrope"}, {"factor", 4.0}}),
       "rope_scaling: rope_type: found \"longrope\", expected default, linear, dynamic, yarn or llama3"},
      {with(mistral(), "/rope_scaling", {{"type", "mrope"}}), "rope_scaling: type: found \"mrope\""},
      {with(mistral(), "/rope_scaling", {{"type", "linear"}}), "rope_scaling: factor: missing"},
      {with(mistral(), "/rope_scaling", {{"type", "linear"}, {"factor", -2.0}}),
       "rope_scaling: factor: found -2, expected a positive number"},
      {with(mistral(), "/rope_scaling", {{"type", "linear"}, {"factor", "two"}}), "factor: found \"two\", expected a number"},
      {with(mistral(), "/rope_scaling", 4), "rope_scaling: found 4, expected an object"},
      {with(mistral(), "/rope_parameters", {{"full_attention", {{"rope_theta", 1e4}}}}), "expected one setting for all layers"},
      {with(mistral(), "/rope_parameters", {{"rope_type", "llama3"}, {"factor", 8.0}}), "low_freq_factor: missing"},
      {with(mistral(), "/partial_rotary_factor", 0.5), "partial_rotary_factor: found 0.5, expected 1.0"},
      {with(mistral(), "/rope_parameters", {{"partial_rotary_factor", 0.25}}), "partial_rotary_factor: found 0.25"},
      {with(qwen2(), "/mlp_bias", true), "mlp_bias: found true, expected false"},
      {with(qwen2(), "/layer_types", {"full_attention", "sliding_attention", "full_attention"}),
       "layer_types[1]: found sliding_attention, expected full_attention without use_sliding_window"},
      {with(qwen2(), "/layer_types", {"full_attention"}), "layer_types: found 1 layer, expected num_hidden_layers, 3"},
      {with(qwen2(), "/layer_types", {"full_attention", "linear_attention", "full_attention"}),
       "layer_types[1]: found \"linear_attention\""},
      {with(hybrid(), "/molt", 3), "molt: found 3, expected an object"},
      {with(hybrid(), "/molt", {{"attention", {{"qk_norm", "yes"}}}}),
       "molt.attention.qk_norm: found \"yes\", expected true or false"},
      {with(mistral(), "/quantization_config", {{"bits", 4}}), "quantization_config"},
      {with(hybrid(), "/hybrid_block_layout", {"t", "gdn", "t"}), "hybrid_block_layout[1]: unknown mixer letter \"gdn\""},
      {with(hybrid(), "/hybrid_block_layout", {"t", "m2d", "t"}), "\"m2d\""},
      {with(hybrid(), "/hybrid_block_layout", {"t", "m2"}), "found 2 letters, expected num_hidden_layers, 3"},
      {without(hybrid(), "hybrid_block_layout"), "hybrid_block_layout: missing"},
      {with(hybrid(), "/ssm_cfg/d_state", -4), "ssm_cfg: d_state: found -4"},
      {with(hybrid(), "/ssm_cfg", {{"d_state", 8}}), "ssm_cfg: d_inner: missing"},
      {with(hybrid(), "/ssm_cfg", 7), "config.json: ssm_cfg"},
      {with(hybrid(), "/ssm_cfg/bias", true), "ssm_cfg.bias: found true, expected false"},
      {Json::array(), "config.json: expected an object"},
  };
  for (const auto& [config, expected] : cases) {
    const std::string found = error_of(config);
    EXPECT_NE(found.find(expected), std::string::npos) << "expected: " << expected << "\nfound: " << found;
    EXPECT_EQ(found.find('\n'), std::string::npos) << found;
  }
}

OrderedJson again(const Json& config) {
  const ModelConfig model = parse_model_config(config, "config.json");
  return make_config_json(model, family_for(model, config), OrderedJson(config), "float32");
}

TEST(ConfigJson, AnUnchangedModelKeepsItsConfig) {
  Json full = with(mistral(), "/torch_dtype", "float32");
  EXPECT_EQ(Json(again(full)), full);
  Json sparse = without(without(full, "head_dim"), "sliding_window");
  sparse["rope_parameters"] = {{"rope_theta", 5000}, {"rope_type", "default"}};
  sparse["dtype"] = "float32";
  sparse.erase("torch_dtype");
  sparse["an_unknown_key"] = {{"kept", {1, 2, 3}}};
  EXPECT_EQ(Json(again(sparse)), sparse);
  Json mixed = with(hybrid(), "/torch_dtype", "float32");
  EXPECT_EQ(Json(again(mixed)), mixed);
  Json windowed = with(with(mixed, "/sliding_window", 16), "/hybrid_block_layout", {"t", "t", "m2"});
  EXPECT_EQ(Json(again(windowed)), windowed);
}

TEST(ConfigJson, WritesWhatItReadsBack) {
  const Json yarn = {{"rope_type", "yarn"}, {"factor", 4.0}};
  const Json windowed = with(with(qwen2(), "/use_sliding_window", true), "/max_window_layers", 1);
  for (const Json& config :
       {mistral(), hybrid(), with(mistral(), "/sliding_window", 8), with(mistral(), "/rope_scaling", yarn), qwen2(), windowed,
        with(hybrid(), "/molt", {{"attention", {{"qk_norm", true}}}, {"mlp", {{"bias", true}}}})}) {
    const ModelConfig model = parse_model_config(config, "c");
    const OrderedJson written = make_config_json(model, family_for(model, Json()), OrderedJson(), "bfloat16");
    EXPECT_EQ(to_yaml(parse_model_config(Json(written), "written")), to_yaml(model));
    EXPECT_EQ(written["torch_dtype"], "bfloat16");
  }
}

TEST(ConfigJson, TheFamilyFollowsTheLayout) {
  auto family = [](const Json& config, const Json& like) {
    return std::string(family_for(parse_model_config(config, "c"), like).model_type);
  };
  const Json llama = {{"model_type", "llama"}};
  EXPECT_EQ(family(mistral(), Json()), "mistral");
  EXPECT_EQ(family(mistral(), llama), "llama");
  EXPECT_EQ(family(with(mistral(), "/sliding_window", 8), llama), "mistral");
  EXPECT_EQ(family(hybrid(), llama), "apriel_hybrid_ssm");
  EXPECT_EQ(family(mistral(), hybrid()), "apriel_hybrid_ssm");
  EXPECT_EQ(family(qwen2(), llama), "qwen2");
  const Json identity =
      with(with(hybrid(), "/hybrid_block_layout", {"t", "i", "t"}), "/molt", {{"attention", {{"qkv_bias", true}}}});
  EXPECT_EQ(family(identity, qwen2()), "apriel_hybrid_ssm");
}

TEST(ConfigJson, ATeachersKeysGoIntoItsHybrid) {
  Json teacher = with(mistral(), "/eos_token_id", 7);
  teacher["auto_map"] = {{"AutoConfig", "their.Config"}};
  const ModelConfig model = parse_model_config(hybrid(), "c");
  const OrderedJson written = make_config_json(model, family_for(model, teacher), OrderedJson(teacher), "float32");
  EXPECT_EQ(written["model_type"], "apriel_hybrid_ssm");
  EXPECT_EQ(written["eos_token_id"], 7);
  EXPECT_EQ(written["hybrid_block_layout"], OrderedJson({"t", "m2", "i"}));
  EXPECT_EQ(written["ssm_cfg"]["d_inner"], 96);
  EXPECT_EQ(written["ssm_cfg"]["dt_proj_bias"], true);  // spelled out for readers without our defaults
  EXPECT_FALSE(written.contains("auto_map"));
  EXPECT_EQ(to_yaml(parse_model_config(Json(written), "c")), to_yaml(model));
}

// What a family says in words of its own, a hybrid says in its own.
TEST(ConfigJson, ATeachersBiasesWindowsAndRotaryGoIntoItsHybrid) {
  Json teacher = with(with(qwen2(), "/use_sliding_window", true), "/max_window_layers", 2);
  teacher["rope_scaling"] = {{"type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 128}};
  ModelConfig model = parse_model_config(teacher, "c");
  model.blocks[1] = parse_model_config(hybrid(), "c").blocks[1];
  const OrderedJson written = make_config_json(model, family_for(model, teacher), OrderedJson(teacher), "float32");
  EXPECT_EQ(written["model_type"], "apriel_hybrid_ssm");
  EXPECT_EQ(written["hybrid_block_layout"], OrderedJson({"t", "m2", "swa"}));
  EXPECT_EQ(written["molt"], OrderedJson({{"attention", {{"qkv_bias", true}}}}));
  EXPECT_EQ(written["sliding_window"], 16);
  EXPECT_EQ(written["rope_scaling"], OrderedJson(teacher["rope_scaling"]));
  EXPECT_FALSE(written.contains("use_sliding_window"));
  EXPECT_EQ(to_yaml(parse_model_config(Json(written), "c")), to_yaml(model));
}

TEST(ConfigJson, RefusesLayersThatOneKeyCannotDescribe) {
  ModelConfig model = parse_model_config(with(hybrid(), "/hybrid_block_layout", {"m2", "m2", "t"}), "c");
  auto other = std::make_shared<MambaConfig>(dynamic_cast<const MambaConfig&>(model.blocks[1].mixer()));
  other->d_inner = 48;
  model.blocks[1] = model.blocks[1].with_mixer(other);
  try {
    make_config_json(model, family_for(model, Json()), OrderedJson(), "float32");
    FAIL() << "expected an error";
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find("layer 1: ssm_cfg.d_inner is 48, but 96 in layer 0"), std::string::npos)
        << error.what();
  }
}

}  // namespace config_json_test
}  // namespace molt
