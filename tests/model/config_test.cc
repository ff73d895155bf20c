#include "model/config.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "model/mixers/attention/attention.h"
#include "model/mixers/mamba/mamba.h"
#include "model/model.h"
#include "model/support.h"
#include "support/error_of.h"

namespace molt::test {

namespace config_test {

// The published fragment; PATTERN and NUMBER are put in.
std::string published(const std::string& pattern, int num_blocks) {
  return R"(decoder:
  type: "pattern"
  blocks:
    attention_block:
      mixer:
        type: "attention"
        heads: 32
        head_groups: 8
        head_size: 128
      mlp:
        type: "gated"
        activation: "silu"
    mamba_block:
      mixer:
        type: "mamba"
        d_inner: 4096
        state_size: 16
        dt_rank: 16
      mlp:
        type: "gated"
        activation: "silu"
  num_blocks: )" +
         std::to_string(num_blocks) + "\n  pattern: " + pattern + "\n";
}

ModelConfig parse(const std::string& text) {
  ModelConfig config;
  parse_config(text, "model.yaml", {}, [&](ConfigVisitor& v) { config.visit(v); });
  return config;
}

std::string error_of(const std::string& text) {
  return molt::error_of([&] { parse(text); });
}

TEST(ModelConfig, AcceptsThePublishedFragment) {
  const ModelConfig config = parse(published(R"(["attention_block", "attention_block", "mamba_block"])", 3));
  EXPECT_EQ(config.layout(), (std::vector<std::string>{"t", "t", "m2"}));
  const auto& attention = dynamic_cast<const AttentionConfig&>(config.blocks[0].mixer());
  EXPECT_EQ(attention.heads, 32);
  EXPECT_EQ(attention.head_groups, 8);
  EXPECT_EQ(attention.head_size, 128);
  const auto& mamba = dynamic_cast<const MambaConfig&>(config.blocks[2].mixer());
  EXPECT_EQ(mamba.d_inner, 4096);
  EXPECT_EQ(mamba.d_xb, 1024);
  EXPECT_EQ(mamba.state_size, 16);
  EXPECT_EQ(mamba.dt_rank, 16);
  EXPECT_EQ(mamba.d_conv, 4);
  EXPECT_EQ(mamba.initialisation, "published");
  EXPECT_EQ(config.blocks[2].mlp.activation, "silu");
}

TEST(ModelConfig, RepeatsAPattern) {
  const ModelConfig config = parse(published("[attention_block, mamba_block]", 50));
  EXPECT_EQ(config.num_layers(), 50);
  EXPECT_EQ(config.layout()[48], "t");
  EXPECT_EQ(config.layout()[49], "m2");
}

TEST(ModelConfig, SaysWhatIsWrongWithAPattern) {
  EXPECT_EQ(
      error_of(published(R"(["attention_block", "attention_block", "mamba_block", ...])", 50)),
      "model.yaml: decoder.pattern[3]: found \"...\", expected the name of a block: write out one name a layer, or one period "
      "of the pattern (pattern: [attention_block, mamba_block]), which is repeated to num_blocks");
  EXPECT_EQ(error_of(published("[attention_block, mamba_blok]", 2)),
            "model.yaml: decoder.pattern[1]: found \"mamba_blok\", expected a name under blocks (did you mean \"mamba_block\"?)");
  EXPECT_EQ(error_of(published("[attention_block, mamba_block]", 51)),
            "model.yaml: decoder.num_blocks: found 51, expected a multiple of the pattern's 2 entries, which are repeated");
  EXPECT_EQ(error_of(published("[]", 2)), "model.yaml: decoder.pattern: missing, expected names of blocks");
}

TEST(ModelConfig, KnowsTheMixersKeys) {
  EXPECT_EQ(error_of("decoder: {type: fixed, num_blocks: 1, block: {mixer: {type: attention, d_inner: 3}}}"),
            "model.yaml:1: decoder.block.mixer.d_inner: unknown key (known here: type, heads, head_groups, head_size, qkv_bias, "
            "output_bias, qk_norm)");
  EXPECT_NE(error_of("decoder: {type: fixed, num_blocks: 1, block: {mixer: {type: mambo}}}").find("(did you mean \"mamba\"?)"),
            std::string::npos);
}

TEST(ModelConfig, ReadsAnExplicitLayoutAndOneKindOfBlock) {
  const std::string blocks = R"(
  blocks:
    a: {mixer: {type: attention, heads: 4, head_groups: 2, head_size: 8}, mlp: {intermediate_size: 40}}
    w: {mixer: {type: sliding_window, heads: 4, head_groups: 2, head_size: 8, window: 5}, mlp: {intermediate_size: 40}}
    i: {mixer: {type: identity}}
)";
  const ModelConfig config = parse("hidden_size: 24\nvocabulary: 9\ndecoder:\n  type: layout\n  layout: [a, w, i, a]" + blocks);
  EXPECT_EQ(config.layout(), (std::vector<std::string>{"t", "swa", "i", "t"}));
  EXPECT_EQ(dynamic_cast<const AttentionConfig&>(config.blocks[1].mixer()).window, 5);
  EXPECT_EQ(Model(config).parameters().size(), 3u + 3 * 6);

  const ModelConfig fixed = parse(R"(
decoder:
  type: fixed
  num_blocks: 7
  block: {mixer: {type: attention, heads: 4, head_groups: 2, head_size: 8}, mlp: {intermediate_size: 40}})");
  EXPECT_EQ(fixed.num_layers(), 7);
}

TEST(ModelConfig, WritesWhatItReads) {
  for (const std::vector<BlockConfig>& blocks :
       {hybrid_config().blocks, std::vector<BlockConfig>(3, mamba_block()), std::vector<BlockConfig>()}) {
    const ModelConfig config = small_config(blocks);
    const std::string text = to_yaml(config);
    const ModelConfig again = parse(text);
    EXPECT_EQ(again.layout(), config.layout());
    EXPECT_EQ(to_yaml(again), text);
  }
}

TEST(ModelConfig, RefusesAttentionBlocksThatLeaveMambaOpen) {
  EXPECT_EQ(error_of(R"(
decoder:
  type: layout
  layout: [a, m]
  blocks:
    a: {mixer: {type: attention, heads: 4, head_groups: 2, head_size: 8}}
    b: {mixer: {type: attention, heads: 4, head_groups: 4, head_size: 8}}
    m: {mixer: {type: mamba, d_inner: 32}})"),
            "mixer mamba: d_xb: missing, and the attention blocks disagree: 16 or 32");
}

TEST(MixerKinds, AreFoundByTypeAndLetter) {
  EXPECT_EQ(mixer_kind("mamba", "here").letter, "m2");
  EXPECT_EQ(mixer_kind_by_letter("swa", "here").type, "sliding_window");
  try {
    mixer_kind_by_letter("gdn", "config.json: hybrid_block_layout[3]");
    FAIL();
  } catch (const UserError& error) {
    EXPECT_STREQ(error.what(),
                 "config.json: hybrid_block_layout[3]: unknown mixer letter \"gdn\", expected one of t, swa, m2, i");
  }
}

}  // namespace config_test

}  // namespace molt::test
