#include "model/mixers/mamba/mamba.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/random.h"
#include "model/initialise.h"

namespace molt {

namespace mamba_detail {

// Of the input projection; UserError for settings that make no layer.
std::vector<Linear::Section> checked_sections(const MambaConfig& config) {
  const std::string place = "mixer mamba: ";
  require(config.state_size > 0, place, "state_size: found ", config.state_size, ", expected at least 1");
  require(config.d_inner > 0 && config.d_inner % config.state_size == 0, place, "d_inner: found ", config.d_inner,
          ", expected a positive multiple of state_size ", config.state_size);
  require(config.d_xb > 0 && config.d_xb % config.state_size == 0, place, "d_xb: found ", config.d_xb,
          ", expected a positive multiple of state_size ", config.state_size);
  require(config.d_inner % config.d_xb == 0, place, "d_xb: found ", config.d_xb, ", expected a divisor of d_inner ",
          config.d_inner);
  require(config.dt_rank > 0, place, "dt_rank: found ", config.dt_rank, ", expected at least 1");
  require(config.d_conv >= 2 && config.d_conv <= 4, place, "d_conv: found ", config.d_conv, ", expected 2, 3 or 4");
  require(config.dt_min > 0 && config.dt_min <= config.dt_max, place, "dt_min: found ", config.dt_min,
          ", expected a positive number of at most dt_max ", config.dt_max);
  return {{"z", config.d_inner}, {"x", config.d_xb}, {"B", config.d_xb}, {"C", config.d_inner}};
}

// What the step's sequences continue from: zeros for those that only begin, whose slots may hold what an earlier one left.
at::Tensor continued(const at::Tensor& entry, const Step& step) {
  return at::where(step.context_lens.gt(0).view({-1, 1, 1}), entry.index_select(0, step.state_slots), at::Scalar(0));
}

}  // namespace mamba_detail

MambaMixer::MambaMixer(const MambaConfig& config, const ModelConfig& model)
    : in_proj(model.hidden_size, mamba_detail::checked_sections(config), false),
      dt_in_proj(model.hidden_size, config.dt_rank, false),
      dt_proj(config.dt_rank, config.d_inner, true),
      out_proj(config.d_inner, model.hidden_size, false),
      config_(config) {
  const auto meta = at::TensorOptions(at::kMeta).dtype(at::kFloat);
  const std::int64_t channels = config.repeat_kv_before_conv ? config.d_inner : config.d_xb;
  conv_weight = at::empty({channels, 1, config.d_conv}, meta);
  if (config.conv_bias) conv_bias = at::empty({channels}, meta);
  A_log = at::empty({config.d_inner, config.state_size}, meta);
  D = at::empty({config.d_inner}, meta);
}

MambaMixer::Inputs MambaMixer::project(const at::Tensor& hidden) const {
  Inputs inputs{.zxBC = in_proj.forward(hidden), .conv = {}, .scan = {}, .dt_low = dt_in_proj.forward(hidden)};
  inputs.conv.weight = conv_weight.squeeze(1);
  inputs.conv.bias = conv_bias;
  inputs.conv.repeat = conv_weight.size(0) / (in_proj.out() / 2 - out_proj.in());
  inputs.conv.group_size = A_log.size(1);
  inputs.scan.dt_bias = dt_proj.bias;
  inputs.scan.A_log = A_log;
  inputs.scan.D = D;
  return inputs;
}

at::Tensor MambaMixer::forward(const at::Tensor& hidden, const PackedBatch& batch) const {
  auto [zxBC, conv, scan, dt_low] = project(hidden);
  scan.dt = dt_proj.forward_without_bias(dt_low);
  return out_proj.forward(ops::mamba_scan(zxBC, conv, scan, batch.sequences));
}

at::Tensor MambaMixer::extend(const at::Tensor& hidden, const Step& step, BlockCache& cache) const {
  at::Tensor &windows = cache[0], &states = cache[1];
  auto [zxBC, conv, scan, dt_low] = project(hidden);
  ops::set_parts(zxBC, conv, scan);
  const bool one_token_each = step.sequences.max_length == 1 && step.sequences.tokens() == step.sequences.count();
  if (one_token_each) {
    const ops::MambaCache places{windows, states, step.state_slots, step.context_lens};
    return out_proj.forward(ops::mamba_update(conv, scan, dt_low, dt_proj.merged_weight(), places));
  }
  scan.dt = dt_proj.forward_without_bias(dt_low);
  conv.initial_window = mamba_detail::continued(windows, step);
  scan.x = ops::causal_conv(conv, step.sequences);
  windows.index_copy_(0, step.state_slots, ops::causal_conv_final_windows(conv, step.sequences));
  scan.initial_state = mamba_detail::continued(states, step);
  const ops::ScanOutput scanned = ops::selective_scan(scan, step.sequences, {.final_state = true, .positions = {}});
  states.index_copy_(0, step.state_slots, scanned.final_state);
  return out_proj.forward(scanned.y);
}

std::vector<CacheEntry> MambaMixer::cache_spec() const {
  const std::int64_t d_inner = out_proj.in();
  const std::int64_t d_xb = in_proj.out() / 2 - d_inner;
  return {{"conv", {d_xb, conv_weight.size(2) - 1}, in_proj.weight.scalar_type(), CacheEntry::Per::sequence},
          {"state", {d_inner, A_log.size(1)}, at::kFloat, CacheEntry::Per::sequence}};
}

void MambaMixer::visit(const std::string& prefix, const ParameterVisitor& visitor) {
  in_proj.visit(prefix + ".in_proj", visitor);
  dt_in_proj.visit(prefix + ".dt_in_proj", visitor);
  dt_proj.visit(prefix + ".dt_proj", visitor);
  visitor(prefix + ".conv1d.weight", conv_weight);
  if (conv_bias.defined()) visitor(prefix + ".conv1d.bias", conv_bias);
  visitor(prefix + ".A_log", A_log);
  visitor(prefix + ".D", D);
  out_proj.visit(prefix + ".out_proj", visitor);
}

double MambaMixer::flops(std::int64_t) const {
  const std::int64_t products =
      in_proj.weight.numel() + dt_in_proj.weight.numel() + dt_proj.weight.numel() + out_proj.weight.numel() + conv_weight.numel();
  // A state's value: dt A, exp, (dt x) B, and two multiply-adds; a channel's: dt x, D x added, the gate.
  const std::int64_t scan = 7 * A_log.numel() + 4 * D.numel();
  return 2.0 * static_cast<double>(products) + static_cast<double>(scan);
}

double MambaMixer::kept_states(std::int64_t tokens, at::ScalarType dtype, at::Device device) const {
  return static_cast<double>(ops::selective_scan_kept_bytes(tokens, 1, A_log, dtype, device));
}

}  // namespace molt
