#include "model/mixers/attention/attention.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/random.h"
#include "model/initialise.h"
#include "ops/attention/attention.h"

namespace molt {

void AttentionConfig::visit(ConfigVisitor& v) {
  v.field("heads", heads, "Query heads");
  v.field("head_groups", head_groups, "Heads of keys and values, each shared by heads / head_groups query heads");
  v.field("head_size", head_size, "Values of a head");
  v.field("qkv_bias", qkv_bias, "Biases on queries, keys and values");
  if (sliding_) v.field("window", window, "How many tokens a token sees, itself among them");
}

namespace attention_detail {

// Of the projection; UserError for settings that make no layer.
std::vector<Linear::Section> checked_sections(const AttentionConfig& config) {
  const std::string place = concat("mixer ", config.type(), ": ");
  require(config.heads > 0, place, "heads: found ", config.heads, ", expected at least 1");
  require(config.head_groups > 0, place, "head_groups: found ", config.head_groups, ", expected at least 1");
  require(config.heads % config.head_groups == 0, place, "head_groups: found ", config.head_groups,
          ", expected a divisor of heads ", config.heads);
  require(config.head_size > 0 && config.head_size % 2 == 0, place, "head_size: found ", config.head_size,
          ", expected an even number of at least 2");
  require(!config.sliding() || config.window > 0, place, "window: found ", config.window, ", expected at least 1");
  return {{"q", config.query_size()}, {"k", config.key_size()}, {"v", config.key_size()}};
}

std::vector<TensorName> tensor_names(const MixerConfig& config) {
  std::vector<TensorName> names;
  const auto& attention = dynamic_cast<const AttentionConfig&>(config);
  for (const Linear::Section& part : checked_sections(attention)) {
    names.push_back({"qkv.weight", part.name, concat("self_attn.", part.name, "_proj.weight"), 1.0, part.rows});
    if (attention.qkv_bias)
      names.push_back({"qkv.bias", part.name, concat("self_attn.", part.name, "_proj.bias"), 1.0, part.rows});
  }
  names.push_back({"o_proj.weight", "", "self_attn.o_proj.weight"});
  return names;
}

std::unique_ptr<Mixer> make(const MixerConfig& config, const ModelConfig& model) {
  return std::make_unique<AttentionMixer>(dynamic_cast<const AttentionConfig&>(config), model);
}

template <bool sliding>
std::unique_ptr<MixerConfig> make_config() {
  return std::make_unique<AttentionConfig>(sliding);
}

}  // namespace attention_detail

AttentionMixer::AttentionMixer(const AttentionConfig& config, const ModelConfig& model)
    : qkv(model.hidden_size, attention_detail::checked_sections(config), config.qkv_bias),
      o_proj(config.query_size(), model.hidden_size, false),
      config_(config),
      rotary_(model.rotary),
      scale_(1 / std::sqrt(static_cast<double>(config.head_size))) {}

ops::QueryKeyValue AttentionMixer::project(const at::Tensor& hidden, const ops::RotaryTable& given,
                                           const at::Tensor& positions) const {
  const std::int64_t size = config_.head_size;
  const std::int64_t heads = o_proj.in() / size;
  const std::int64_t groups = (qkv.out() / size - heads) / 2;
  const at::Tensor projected = qkv.forward(hidden);
  if (given.cos.defined() && given.cos.size(1) * 2 == size) return ops::rotary_qkv(projected, heads, groups, given);
  return ops::rotary_qkv(projected, heads, groups, ops::rotary_table(rotary_.frequencies(size, positions.device()), positions));
}

at::Tensor AttentionMixer::forward(const at::Tensor& hidden, const PackedBatch& batch) const {
  const auto [q, k, v] = project(hidden, batch.rotary, batch.positions);
  return o_proj.forward(ops::attention(q, k, v, batch.sequences, scale_, window()).flatten(1));
}

at::Tensor AttentionMixer::extend(const at::Tensor& hidden, const Step& step, BlockCache& cache) const {
  const auto [q, k, v] = project(hidden, step.rotary, step.positions);
  ops::store_kv(k, v, cache[0], cache[1], step.slot_mapping);
  const at::Tensor mixed = ops::attention_with_cache(q, cache[0], cache[1], step.sequences,
                                                     {step.context_lens, step.contexts, step.block_table}, scale_, window());
  return o_proj.forward(mixed.flatten(1));
}

std::vector<CacheEntry> AttentionMixer::cache_spec() const {
  const std::int64_t size = config_.head_size;
  const std::vector<std::int64_t> shape{(qkv.out() - o_proj.in()) / 2 / size, size};
  const auto dtype = qkv.weight.scalar_type();
  return {{"key", shape, dtype, CacheEntry::Per::token}, {"value", shape, dtype, CacheEntry::Per::token}};
}

void AttentionMixer::visit(const std::string& prefix, const ParameterVisitor& visitor) {
  qkv.visit(prefix + ".qkv", visitor);
  o_proj.visit(prefix + ".o_proj", visitor);
}

void AttentionMixer::initialise(const InitialiseOptions& options) {
  for (const auto& [name, weight] : {std::pair("qkv", &qkv.weight), std::pair("o_proj", &o_proj.weight)}) {
    fill_if_meta(*weight, [&, name = name](at::IntArrayRef sizes) {
      return random_normal(sizes, options.standard_deviation, derive_seed(options.seed, name));
    });
  }
  fill_if_meta(qkv.bias, [](at::IntArrayRef sizes) { return at::zeros(sizes, at::kFloat); });
}

double AttentionMixer::flops(std::int64_t context) const {
  const std::int64_t seen = config_.sliding() ? std::min(context, config_.window) : context;
  const std::int64_t products = qkv.weight.numel() + o_proj.weight.numel();
  return 2.0 * static_cast<double>(products) + 4.0 * static_cast<double>(o_proj.in()) * static_cast<double>(seen);
}

MixerKind attention_kind() {
  using namespace attention_detail;
  return {"attention", "t", make_config<false>, make, tensor_names, nullptr};
}

MixerKind sliding_window_kind() {
  using namespace attention_detail;
  return {"sliding_window", "swa", make_config<true>, make, tensor_names, nullptr};
}

}  // namespace molt
