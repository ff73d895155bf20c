#include "model/mixers/attention/attention.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "base/random.h"
#include "model/initialise.h"
#include "ops/attention/attention.h"
#include "ops/new_tensor.h"
#include "ops/rms_norm/rms_norm.h"

namespace molt {

void AttentionConfig::visit(ConfigVisitor& v) {
  v.field("heads", heads, "Query heads");
  v.field("head_groups", head_groups, "Heads of keys and values, each shared by heads / head_groups query heads");
  v.field("head_size", head_size, "Values of a head");
  v.field("qkv_bias", qkv_bias, "Biases on queries, keys and values");
  v.field("output_bias", output_bias, "A bias on the output projection");
  v.field("qk_norm", qk_norm, "RMSNorm of each head's query and key before the rotary embedding");
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
  if (attention.output_bias) names.push_back({"o_proj.bias", "", "self_attn.o_proj.bias"});
  if (attention.qk_norm) {
    names.push_back({"q_norm.weight", "", "self_attn.q_norm.weight"});
    names.push_back({"k_norm.weight", "", "self_attn.k_norm.weight"});
  }
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
      o_proj(config.query_size(), model.hidden_size, config.output_bias),
      config_(config),
      rotary_(model.rotary),
      norm_epsilon_(model.norm_epsilon),
      scale_(1 / std::sqrt(static_cast<double>(config.head_size))) {
  if (!config.qk_norm) return;
  const auto meta = at::TensorOptions(at::kMeta).dtype(at::kFloat);
  q_norm = at::empty({config.head_size}, meta);
  k_norm = at::empty({config.head_size}, meta);
}

template <class Batch>
AttentionMixer::Projected AttentionMixer::project(const at::Tensor& hidden, const Batch& batch) const {
  const std::int64_t size = config_.head_size;
  const std::int64_t heads = o_proj.in() / size;
  const std::int64_t groups = (qkv.out() / size - heads) / 2;
  Projected projected{qkv.forward(hidden), batch.rotary, heads, groups};
  if (!projected.table.cos.defined() || projected.table.cos.size(1) * 2 != size) {
    projected.table = rotary_.table(rotary_.frequencies(size, batch.positions.device()), batch.positions, batch.sequences);
  }
  return projected;
}

ops::QueryKeyValue AttentionMixer::normed(const Projected& projected) const {
  const auto [q, k, v] = ops::rotary_qkv(projected.qkv, projected.heads, projected.groups, {});
  return {ops::rms_norm(q, q_norm, norm_epsilon_), ops::rms_norm(k, k_norm, norm_epsilon_), v};
}

at::Tensor AttentionMixer::forward(const at::Tensor& hidden, const PackedBatch& batch) const {
  const Projected projected = project(hidden, batch);
  ops::QueryKeyValue parts;
  if (q_norm.defined()) {
    parts = normed(projected);
    parts.q = ops::rotary(parts.q, projected.table), parts.k = ops::rotary(parts.k, projected.table);
  } else {
    parts = ops::rotary_qkv(projected.qkv, projected.heads, projected.groups, projected.table);
  }
  return o_proj.forward(ops::attention(parts.q, parts.k, parts.v, batch.sequences, scale_, window()).flatten(1));
}

at::Tensor AttentionMixer::extend(const at::Tensor& hidden, const Step& step, BlockCache& cache) const {
  Projected projected = project(hidden, step);
  if (q_norm.defined()) {
    const auto [q, k, v] = normed(projected);
    projected.qkv = at::cat({q, k, v}, 1).flatten(1);
  }
  const at::Tensor q = ops::store_qkv(projected.qkv, projected.heads, projected.table, cache[0], cache[1], step.slot_mapping);
  at::Tensor mixed = ops::attention_with_cache(q, cache[0], cache[1], step.sequences,
                                               {step.context_lens, step.contexts, step.block_table}, scale_, window());
  return o_proj.forward(ops::flat_rows(std::move(mixed)));
}

std::vector<CacheEntry> AttentionMixer::cache_spec() const {
  const std::int64_t size = config_.head_size;
  const std::vector<std::int64_t> shape{(qkv.out() - o_proj.in()) / 2 / size, size};
  const auto dtype = qkv.weight.scalar_type();
  return {{"key", shape, dtype, CacheEntry::Per::token}, {"value", shape, dtype, CacheEntry::Per::token}};
}

bool AttentionMixer::replayable() const {
  return config_.head_size <= ops::kLargestDecodeHead;
}

void AttentionMixer::visit(const std::string& prefix, const ParameterVisitor& visitor) {
  qkv.visit(prefix + ".qkv", visitor);
  o_proj.visit(prefix + ".o_proj", visitor);
  if (!q_norm.defined()) return;
  visitor(prefix + ".q_norm.weight", q_norm);
  visitor(prefix + ".k_norm.weight", k_norm);
}

void AttentionMixer::initialise(const InitialiseOptions& options) {
  for (const auto& [name, weight] : {std::pair("qkv", &qkv.weight), std::pair("o_proj", &o_proj.weight)}) {
    fill_if_meta(*weight, [&, name = name](at::IntArrayRef sizes) {
      return random_normal(sizes, options.standard_deviation, derive_seed(options.seed, name));
    });
  }
  for (at::Tensor* bias : {&qkv.bias, &o_proj.bias}) {
    fill_if_meta(*bias, [](at::IntArrayRef sizes) { return at::zeros(sizes, at::kFloat); });
  }
  for (at::Tensor* norm : {&q_norm, &k_norm}) {
    fill_if_meta(*norm, [](at::IntArrayRef sizes) { return at::ones(sizes, at::kFloat); });
  }
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
