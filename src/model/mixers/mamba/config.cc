#include "base/error.h"
#include "model/mixers/attention/attention.h"
#include "model/mixers/mamba/mamba.h"

namespace molt {

void MambaConfig::visit(ConfigVisitor& v) {
  v.field("d_inner", d_inner, "Channels; 0: heads * head_size of the model's attention block");
  v.field("d_xb", d_xb, "Columns of x and of B; 0: head_groups * head_size of the model's attention block");
  v.field("state_size", state_size, "State values a channel, and the width of a group of channels");
  v.field("dt_rank", dt_rank, "Width of the bottleneck from which the step sizes dt are projected");
  v.field("d_conv", d_conv, "Width of the causal convolution, 2 to 4");
  v.field("repeat_kv_before_conv", repeat_kv_before_conv, "Convolve d_inner channels (x repeated first) instead of d_xb");
  v.field("conv_bias", conv_bias, "Bias of the convolution");
  v.field("dt_min", dt_min, "Smallest step size that a new layer begins with");
  v.field("dt_max", dt_max, "Largest step size that a new layer begins with");
  v.field("dt_init_floor", dt_init_floor, "Step sizes of a new layer are raised to this");
  v.choice("initialisation", initialisation, {"published", "aligned", "random"},
           "Where an attention layer's weights go on conversion: Mamba-in-Llama as published; the same with each slice of a "
           "query paired with its own slice of the key; nowhere");
}

void MambaConfig::complete(const std::vector<std::shared_ptr<const MixerConfig>>& others) {
  const auto fill = [&](const char* key, std::int64_t& value, std::int64_t (AttentionConfig::*size)() const) {
    if (value != 0) return;
    for (const auto& other : others) {
      const auto* attention = dynamic_cast<const AttentionConfig*>(other.get());
      if (!attention) continue;
      const std::int64_t wanted = (attention->*size)();
      require(value == 0 || value == wanted, "mixer mamba: ", key, ": missing, and the attention blocks disagree: ", value,
              " or ", wanted);
      value = wanted;
    }
  };
  fill("d_inner", d_inner, &AttentionConfig::query_size);
  fill("d_xb", d_xb, &AttentionConfig::key_size);
}

namespace mamba_config {

std::vector<TensorName> tensor_names(const MixerConfig& config) {
  std::vector<TensorName> names;
  for (const char* name : {"in_proj.weight", "dt_in_proj.weight", "dt_proj.weight"})
    names.push_back({name, "", concat("mixer.", name)});
  // The published code adds dt's bias twice: once in the linear layer, once more in the scan.
  names.push_back({"dt_proj.bias", "", "mixer.dt_proj.bias", 2.0});
  names.push_back({"conv1d.weight", "", "mixer.conv1d.weight"});
  if (dynamic_cast<const MambaConfig&>(config).conv_bias) names.push_back({"conv1d.bias", "", "mixer.conv1d.bias"});
  for (const char* name : {"A_log", "D", "out_proj.weight"}) names.push_back({name, "", concat("mixer.", name)});
  return names;
}

}  // namespace mamba_config

MixerKind mamba_kind() {
  return {"mamba",
          "m2",
          []() -> std::unique_ptr<MixerConfig> { return std::make_unique<MambaConfig>(); },
          [](const MixerConfig& config, const ModelConfig& model) -> std::unique_ptr<Mixer> {
            return std::make_unique<MambaMixer>(dynamic_cast<const MambaConfig&>(config), model);
          },
          mamba_config::tensor_names,
          mamba_from_attention};
}

}  // namespace molt
