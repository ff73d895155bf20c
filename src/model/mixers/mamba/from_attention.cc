#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <c10/core/GradMode.h>

#include <cmath>

#include "base/error.h"
#include "base/random.h"
#include "model/initialise.h"
#include "model/mixers/attention/attention.h"
#include "model/mixers/mamba/mamba.h"

namespace molt {

namespace mamba_initial {

// softplus(result) = step size, log-uniform in [dt_min, dt_max].
at::Tensor dt_bias(const MambaConfig& config, at::IntArrayRef sizes, std::uint64_t seed) {
  const at::Tensor dt =
      random_uniform(sizes, std::log(config.dt_min), std::log(config.dt_max), seed).exp().clamp_min(config.dt_init_floor);
  return dt + (-(-dt).expm1()).log();
}

void check_fit(const MambaConfig& config, const AttentionConfig& attention) {
  const std::string place = "mixer mamba: ";
  const std::string otherwise = " (or use initialisation: random)";
  require(config.d_inner == attention.query_size(), place, "d_inner: found ", config.d_inner, ", expected ",
          attention.query_size(), ", the attention layer's heads ", attention.heads, " * head_size ", attention.head_size,
          ", because C takes the rows of q", otherwise);
  require(config.d_xb == attention.key_size(), place, "d_xb: found ", config.d_xb, ", expected ", attention.key_size(),
          ", the attention layer's head_groups ", attention.head_groups, " * head_size ", attention.head_size,
          ", because x takes the rows of v and B those of k", otherwise);
  require(config.initialisation != "aligned" || attention.head_size % config.state_size == 0, place, "state_size: found ",
          config.state_size, ", expected a divisor of head_size ", attention.head_size,
          ", because aligned initialisation pairs whole slices of a head", otherwise);
}

// Which of the attention's channels (head, then place in the head) each of Mamba's takes. With `slices` groups a key head, the
// group of x and B that holds slice t of key head k is j = slices k + t. It serves the groups repeat j + r of the channels, and
// those must hold slice t of the query heads repeat k + r that read this key head.
at::Tensor aligned_channels(const MambaConfig& config, const AttentionConfig& attention) {
  const std::int64_t slices = attention.head_size / config.state_size;
  const std::int64_t repeat = attention.heads / attention.head_groups;
  return at::arange(attention.query_size(), at::kLong)
      .view({attention.head_groups, repeat, slices, config.state_size})
      .transpose(1, 2)
      .flatten();
}

// A bias of v adds the same to a channel's x at every token, so behind the convolution it is the bias times the sum of the
// channel's weights: exact from the d_conv-th token of a sequence on.
void fold_value_bias(MambaMixer& mamba, const AttentionMixer& attention) {
  if (!attention.qkv.bias.defined() || !mamba.conv_bias.defined()) return;
  at::Tensor values = attention.qkv.section_bias("v").to(at::kCPU, mamba.conv_bias.scalar_type());
  const std::int64_t repeat = mamba.conv_weight.size(0) / values.size(0), group = mamba.A_log.size(1);
  values = values.view({-1, 1, group}).expand({-1, repeat, group}).reshape({-1});
  mamba.conv_bias.add_(values * mamba.conv_weight.sum({1, 2}));
}

}  // namespace mamba_initial

void MambaMixer::initialise(const InitialiseOptions& options) {
  const auto seed = [&](const char* name) { return derive_seed(options.seed, name); };
  const auto normal = [&](at::Tensor& tensor, const char* name) {
    fill_if_meta(tensor, [&](at::IntArrayRef sizes) { return random_normal(sizes, options.standard_deviation, seed(name)); });
  };
  const auto uniform = [&](at::Tensor& tensor, double bound, const char* name) {
    fill_if_meta(tensor, [&](at::IntArrayRef sizes) { return random_uniform(sizes, -bound, bound, seed(name)); });
  };
  normal(in_proj.weight, "in_proj.weight");
  normal(dt_in_proj.weight, "dt_in_proj.weight");
  normal(out_proj.weight, "out_proj.weight");
  uniform(dt_proj.weight, 1 / std::sqrt(static_cast<double>(dt_proj.in())), "dt_proj.weight");
  const double conv_bound = 1 / std::sqrt(static_cast<double>(conv_weight.size(2)));
  uniform(conv_weight, conv_bound, "conv1d.weight");
  uniform(conv_bias, conv_bound, "conv1d.bias");
  fill_if_meta(dt_proj.bias, [&](at::IntArrayRef sizes) { return mamba_initial::dt_bias(config_, sizes, seed("dt_proj.bias")); });
  fill_if_meta(A_log, [](at::IntArrayRef sizes) { return at::arange(1, sizes[1] + 1, at::kFloat).log().repeat({sizes[0], 1}); });
  fill_if_meta(D, [](at::IntArrayRef sizes) { return at::ones(sizes, at::kFloat); });
}

std::unique_ptr<Mixer> mamba_from_attention(const MixerConfig& config, const ModelConfig& model, const Mixer& mixer,
                                            const InitialiseOptions& options) {
  using namespace mamba_initial;
  c10::AutoGradMode no_recording(false);
  const auto* attention = dynamic_cast<const AttentionMixer*>(&mixer);
  require(attention, "mixer mamba: initialisation: found a layer of type ", mixer.config().type(), ", expected attention");
  const AttentionConfig& from = attention->config();
  MambaConfig completed = dynamic_cast<const MambaConfig&>(config);
  if (completed.d_inner == 0) completed.d_inner = from.query_size();
  if (completed.d_xb == 0) completed.d_xb = from.key_size();
  const bool random = completed.initialisation == "random";
  if (!random) check_fit(completed, from);

  auto mamba = std::make_unique<MambaMixer>(completed, model);
  mamba->initialise(options);
  if (!random) {
    at::Tensor q = attention->qkv.section_weight("q"), o = attention->o_proj.weight;
    if (completed.initialisation == "aligned") {
      const at::Tensor channels = aligned_channels(completed, from).to(q.device());
      q = q.index_select(0, channels);
      o = o.index_select(1, channels);
    }
    mamba->in_proj.section_weight("x").copy_(attention->qkv.section_weight("v"));
    mamba->in_proj.section_weight("B").copy_(attention->qkv.section_weight("k"));
    mamba->in_proj.section_weight("C").copy_(q);
    mamba->out_proj.weight.copy_(o);
    fold_value_bias(*mamba, *attention);
  }
  const auto& like = attention->qkv.weight;
  mamba->visit("", [&](const std::string& name, at::Tensor& value) {
    const bool keep = mamba->keeps_fp32(name.substr(1)) && like.scalar_type() != at::kDouble;
    value = value.to(like.device(), keep ? at::kFloat : like.scalar_type());
  });
  return mamba;
}

}  // namespace molt
