#include "model/mixers/mamba/mamba.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"
#include "base/random.h"
#include "model/initialise.h"
#include "model/mixers/attention/attention.h"
#include "model/support.h"
#include "support/error_of.h"

namespace molt::test {

namespace mamba_test {

at::Tensor tensor_of(const Json& stored) {
  const auto values = stored.at("values").get<std::vector<float>>();
  return at::tensor(values, at::kFloat).view(stored.at("shape").get<std::vector<std::int64_t>>());
}

// Vectors computed by loops over tokens and channels (mamba_oracle.py), which transformers' MambaMixer reproduces
// (test_mamba.py).
TEST(MambaMixer, ComputesWhatTheOracleDoes) {
  const Json cases = read_json(std::string(MOLT_SOURCE) + "/tests/model/mamba_vectors.json");
  ASSERT_EQ(cases.size(), 2u);
  for (const Json& expected : cases) {
    const Json& sizes = expected.at("sizes");
    MambaConfig config;
    config.d_inner = sizes.at("d_inner");
    config.d_xb = sizes.at("d_xb");
    config.state_size = sizes.at("state_size");
    config.dt_rank = sizes.at("dt_rank");
    config.d_conv = sizes.at("d_conv");
    config.repeat_kv_before_conv = expected.at("repeat_kv_before_conv");
    ModelConfig model;
    model.hidden_size = sizes.at("hidden_size");
    MambaMixer mixer(config, model);
    mixer.visit("", [&](const std::string& name, at::Tensor& value) {
      const at::Tensor stored = tensor_of(expected.at("weights").at(name.substr(1)));
      ASSERT_EQ(stored.sizes(), value.sizes()) << name;
      value = stored;
    });
    const at::Tensor hidden = tensor_of(expected.at("hidden"));
    PackedBatch batch;
    batch.sequences = Sequences::of(expected.at("lengths").get<std::vector<std::int32_t>>());
    EXPECT_LT(difference(mixer.forward(hidden, batch), tensor_of(expected.at("output"))), 2e-5);

    Step step;
    step.sequences = batch.sequences;
    step.contexts = {0, 0, 0};
    step.context_lens = at::zeros({3}, at::kInt);
    step.state_slots = at::tensor({2, 0, 1}, at::kLong);
    BlockCache cache;
    for (const CacheEntry& entry : mixer.cache_spec()) {
      cache.push_back(at::full({3, entry.shape[0], entry.shape[1]}, NAN, entry.dtype));
    }
    EXPECT_LT(difference(mixer.extend(hidden, step, cache), tensor_of(expected.at("output"))), 2e-5);
    EXPECT_LT(difference(cache[0].index_select(0, step.state_slots), tensor_of(expected.at("conv"))), 1e-5);
    EXPECT_LT(difference(cache[1].index_select(0, step.state_slots), tensor_of(expected.at("state"))), 1e-5);
  }
}

TEST(MambaMixer, BeginsAsMambaDoes) {
  ModelConfig model;
  model.hidden_size = 24;
  MambaConfig config;
  config.d_inner = 4096;
  config.d_xb = 1024;
  MambaMixer mixer(config, model);
  mixer.initialise({.seed = 3, .standard_deviation = 0.02});
  EXPECT_LT(difference(mixer.A_log[17].exp(), at::arange(1, 17, at::kFloat)), 1e-5);
  EXPECT_TRUE(at::equal(mixer.D, at::ones(4096)));
  const at::Tensor dt = at::softplus(mixer.dt_proj.bias).log();
  EXPECT_GE(dt.min().item<double>(), std::log(1e-3) - 1e-4);
  EXPECT_LE(dt.max().item<double>(), std::log(1e-1) + 1e-4);
  EXPECT_NEAR(dt.mean().item<double>(), (std::log(1e-3) + std::log(1e-1)) / 2, 0.1);
  EXPECT_LE(mixer.conv_weight.abs().max().item<double>(), 0.5);
  EXPECT_NEAR(mixer.conv_weight.std().item<double>(), 1 / std::sqrt(12.0), 0.01);
  EXPECT_NEAR(mixer.in_proj.weight.std().item<double>(), 0.02, 2e-4);
}

// What a new layer's weights are drawn from.
TEST(Initialise, DrawsTheDistributionsItNames) {
  const at::Tensor normal = random_normal({300, 301}, 2, 1);
  EXPECT_NEAR(normal.mean().item<double>(), 0, 0.03);
  EXPECT_NEAR(normal.std().item<double>(), 2, 0.02);
  EXPECT_NEAR(normal.div(2).pow(4).mean().item<double>(), 3, 0.1);
  const at::Tensor uniform = random_uniform({300, 301}, -1, 3, 1);
  EXPECT_NEAR(uniform.mean().item<double>(), 1, 0.02);
  EXPECT_NEAR(uniform.std().item<double>(), 4 / std::sqrt(12.0), 0.01);
  EXPECT_GE(uniform.min().item<double>(), -1);
  EXPECT_LT(uniform.max().item<double>(), 3);
}

struct Conversion {
  ModelConfig model = small_config({});
  MambaConfig config;
  std::unique_ptr<Mixer> attention;

  explicit Conversion(const std::string& initialisation, at::ScalarType dtype = at::kDouble,
                      const BlockConfig& block = attention_block()) {
    config = dynamic_cast<const MambaConfig&>(mamba_block().mixer());
    config.initialisation = initialisation;
    attention = mixer_kind("attention", "test").make(block.mixer(), model);
    attention->initialise({.seed = 9, .standard_deviation = 0.3});
    attention->visit("", [&](const std::string& name, at::Tensor& value) {
      if (value.dim() == 1) value = random_normal(value.sizes(), 1, derive_seed(5, name));  // biases and norms
      value = value.to(dtype);
    });
  }
  std::unique_ptr<Mixer> convert() const {
    return mixer_kind("mamba", "test").from_attention(config, model, *attention, {.seed = 4, .standard_deviation = 0.02});
  }
  std::string error() const {
    return molt::error_of([&] { convert(); });
  }
};

constexpr double silu_one = 1.2784645427610738;  // silu(silu_one) = 1

// Makes everything between the projections pass through. z reads the last hidden value, which is always 1. The convolution takes
// the token itself and adds 40, where SiLU is linear to the last bit, so x = v + 40.
void pass_through(MambaMixer& mixer) {
  mixer.A_log.fill_(-INFINITY);
  mixer.D.zero_();
  mixer.dt_proj.weight.zero_();
  mixer.dt_proj.bias.fill_(std::log(std::exp(1.0) - 1));  // softplus: 1
  at::Tensor z = mixer.in_proj.section_weight("z");
  z.zero_();
  z.select(1, z.size(1) - 1).fill_(silu_one);
  mixer.conv_weight.zero_();
  mixer.conv_weight.select(2, mixer.conv_weight.size(2) - 1).fill_(1);
  mixer.conv_bias.fill_(40);
}

// Causal linear attention, sum over s <= t of (q_t . k_s) v_s, with the layer's own q, k, v and o, where each slice of a head (4
// of its 8 values) is a head of its own; key_slice(head, slice) says with which slice of the keys and values it is paired.
at::Tensor linear_attention(const AttentionMixer& attention, const at::Tensor& hidden,
                            const std::function<std::int64_t(std::int64_t head, std::int64_t slice)>& key_slice) {
  const auto slices_of = [&](const char* section) {
    return at::mm(hidden, attention.qkv.section_weight(section).t()).view({hidden.size(0), -1, 4});
  };
  const at::Tensor q = slices_of("q"), k = slices_of("k"), v = slices_of("v");
  std::vector<at::Tensor> parts;
  for (std::int64_t head = 0; head < 4; ++head) {
    for (std::int64_t slice = 0; slice < 2; ++slice) {
      const std::int64_t key = key_slice(head, slice);
      parts.push_back(at::mm(at::mm(q.select(1, head * 2 + slice), k.select(1, key).t()).tril(), v.select(1, key)));
    }
  }
  return at::mm(at::cat(parts, 1), attention.o_proj.weight.t());
}

// 4 query heads, 2 key heads, 2 slices a head: as published, slice i of the queries meets slice i / 2 of the keys, in order.
std::int64_t published_pairing(std::int64_t head, std::int64_t slice) {
  return (head * 2 + slice) / 2;
}

// Each slice meets the same slice of the key head that its query head reads.
std::int64_t aligned_pairing(std::int64_t head, std::int64_t slice) {
  return head / 2 * 2 + slice;
}

// The last one: whether the attention layer has biases and norms of queries and keys, which leave no trace here: the Mamba layer
// computes with the projections before them.
class MambaFromAttention : public testing::TestWithParam<std::tuple<std::string, bool, bool>> {};
INSTANTIATE_TEST_SUITE_P(Forms, MambaFromAttention,
                         testing::Combine(testing::Values("published", "aligned"), testing::Bool(), testing::Bool()));

TEST_P(MambaFromAttention, IsLinearAttentionOnceDecayGateAndConvolutionPass) {
  const auto& [initialisation, repeat_before, normed] = GetParam();
  Conversion conversion(initialisation, at::kDouble, normed ? normed_block() : attention_block());
  conversion.config.repeat_kv_before_conv = repeat_before;
  const auto converted = conversion.convert();
  auto& mamba = dynamic_cast<MambaMixer&>(*converted);
  const auto& attention = dynamic_cast<const AttentionMixer&>(*conversion.attention);
  pass_through(mamba);

  at::manual_seed(11);
  at::Tensor hidden = at::randn({9, 24}, at::kDouble);
  hidden.select(1, 23).fill_(1);
  PackedBatch batch;
  batch.sequences = Sequences::of({6, 3});
  // The layer is linear in x = v + 40: what it gives for v = 0 is the 40's part.
  const at::Tensor with_values = mamba.forward(hidden, batch);
  mamba.in_proj.section_weight("x").zero_();
  const at::Tensor found = with_values - mamba.forward(hidden, batch);

  const auto direct = [&](std::int64_t (*pairing)(std::int64_t, std::int64_t)) {
    return at::cat({linear_attention(attention, hidden.narrow(0, 0, 6), pairing),
                    linear_attention(attention, hidden.narrow(0, 6, 3), pairing)});
  };
  const at::Tensor published = direct(published_pairing), aligned = direct(aligned_pairing);
  EXPECT_LT(difference(found, initialisation == "aligned" ? aligned : published), 1e-9);
  EXPECT_GT(difference(published, aligned), 0.1);
}

TEST(MambaFromAttention, TheBiasOfTheValuesIsInTheConvolution) {
  for (const bool repeat_before : {true, false}) {
    Conversion conversion("published", at::kDouble, normed_block());
    conversion.config.repeat_kv_before_conv = repeat_before;
    const auto with_bias = conversion.convert();
    auto& attention = dynamic_cast<AttentionMixer&>(*conversion.attention);
    const at::Tensor values_bias = attention.qkv.section_bias("v").clone();
    attention.qkv.bias.zero_();
    const auto without = conversion.convert();

    const at::Tensor x = random_normal({7, 16}, 1, 2).to(at::kDouble);
    const auto convolved = [&](const Mixer& mixer, const at::Tensor& input) {
      const auto& mamba = dynamic_cast<const MambaMixer&>(mixer);
      return ops::causal_conv({.x = input,
                               .weight = mamba.conv_weight.squeeze(1),
                               .bias = mamba.conv_bias,
                               .initial_window = {},
                               .repeat = mamba.conv_weight.size(0) / 16,
                               .group_size = 4},
                              Sequences::of({7}));
    };
    const at::Tensor folded = convolved(*with_bias, x), expected = convolved(*without, x + values_bias);
    EXPECT_LT(difference(folded.slice(0, 3), expected.slice(0, 3)), 1e-6);
    EXPECT_GT(difference(folded.slice(0, 0, 3), expected.slice(0, 0, 3)), 1e-3);  // where the window reaches beyond the sequence
  }
}

TEST(MambaFromAttention, CopiesTheWeights) {
  Conversion conversion("published", at::kBFloat16);
  conversion.config.d_inner = conversion.config.d_xb = 0;  // both follow from the attention layer
  const auto converted = conversion.convert();
  const auto& mamba = dynamic_cast<const MambaMixer&>(*converted);
  const auto& attention = dynamic_cast<const AttentionMixer&>(*conversion.attention);
  EXPECT_EQ(mamba.config().d_xb, 16);
  for (const auto& [to, from] : {std::pair("x", "v"), std::pair("B", "k"), std::pair("C", "q")}) {
    EXPECT_TRUE(at::equal(mamba.in_proj.section_weight(to), attention.qkv.section_weight(from))) << to;
  }
  EXPECT_TRUE(at::equal(mamba.out_proj.weight, attention.o_proj.weight));
  EXPECT_NE(mamba.out_proj.weight.const_data_ptr(), attention.o_proj.weight.const_data_ptr());
  EXPECT_EQ(mamba.A_log.scalar_type(), at::kFloat);
  EXPECT_EQ(mamba.dt_proj.bias.scalar_type(), at::kBFloat16);
}

TEST(MambaFromAttention, MayLeaveTheWeightsAlone) {
  Conversion conversion("random");
  conversion.config.d_inner = 40;
  conversion.config.d_xb = 8;
  const auto converted = conversion.convert();
  const auto& mamba = dynamic_cast<const MambaMixer&>(*converted);
  EXPECT_NEAR(mamba.in_proj.weight.std().item<double>(), 0.02, 2e-3);
}

TEST(MambaFromAttention, SaysWhatDoesNotFit) {
  Conversion wide("published");
  wide.config.d_inner = 64;
  EXPECT_EQ(
      wide.error(),
      "mixer mamba: d_inner: found 64, expected 32, the attention layer's heads 4 * head_size 8, because C takes the rows of q "
      "(or use initialisation: random)");
  Conversion narrow("published");
  narrow.config.d_xb = 32;
  EXPECT_NE(narrow.error().find("d_xb: found 32, expected 16"), std::string::npos);
  Conversion uneven("aligned");
  uneven.config.state_size = 16;
  EXPECT_EQ(
      uneven.error(),
      "mixer mamba: state_size: found 16, expected a divisor of head_size 8, because aligned initialisation pairs whole slices "
      "of a head (or use initialisation: random)");
  Conversion twice("published");
  twice.attention = mixer_kind("mamba", "test").make(mamba_block().mixer(), twice.model);
  EXPECT_EQ(twice.error(), "mixer mamba: initialisation: found a layer of type mamba, expected attention");
}

TEST(MambaKind, NamesTheTensorsOnDisk) {
  const auto names = mixer_kind("mamba", "test").tensor_names(mamba_block().mixer());
  ASSERT_EQ(names.size(), 9u);
  const auto mixer = mixer_kind("mamba", "test").make(mamba_block().mixer(), small_config({}));
  std::size_t found = 0;
  mixer->visit("", [&](const std::string& name, at::Tensor&) {
    for (const TensorName& row : names) {
      if (row.parameter != name.substr(1)) continue;
      ++found;
      EXPECT_EQ(row.stored, "mixer" + name);
      EXPECT_EQ(row.scale, name == ".dt_proj.bias" ? 2.0 : 1.0);
    }
  });
  EXPECT_EQ(found, 9u);
}

}  // namespace mamba_test

}  // namespace molt::test
