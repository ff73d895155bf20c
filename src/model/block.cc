#include "model/block.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include <utility>

#include "base/error.h"
#include "base/random.h"
#include "model/initialise.h"
#include "model/recompute.h"
#include "ops/rms_norm/rms_norm.h"

namespace molt {

Block::Block(const BlockConfig& config, const ModelConfig& model) : config_(config), norm_epsilon_(model.norm_epsilon) {
  if (config_.identity || config_.mixer().type() == "identity") {
    config_ = config_.with_mixer(mixer_kind("identity", "block").make_config());
    bypass = Bypass::block;
  }
  for (const auto& [name, mixer] : config_.mixers) {
    mixers_[name] = mixer_kind(mixer->type(), "block").make(*mixer, model);
  }
  if (config_.identity) return;
  const MlpConfig& mlp = config_.mlp;
  require(mlp.intermediate_size > 0, "mlp.intermediate_size: found ", mlp.intermediate_size, ", expected at least 1");
  const auto meta = at::TensorOptions(at::kMeta).dtype(at::kFloat);
  mixer_norm = at::empty({model.hidden_size}, meta);
  mlp_norm = at::empty({model.hidden_size}, meta);
  gate_up = Linear(model.hidden_size, {{"gate", mlp.intermediate_size}, {"up", mlp.intermediate_size}}, mlp.bias);
  down = Linear(mlp.intermediate_size, model.hidden_size, mlp.bias);
}

at::Tensor Block::feed_forward(const at::Tensor& normed, const at::Tensor& residual) const {
  return down.forward_and_add(gate_up.forward_swiglu(normed), residual);
}

at::Tensor Block::finish(const at::Tensor& mixer_output, const at::Tensor& hidden) const {
  const auto [normed, sum] = ops::add_rms_norm(mixer_output, hidden, mlp_norm, norm_epsilon_);
  return feed_forward(normed, sum);
}

at::Tensor Block::mlp_alone(const at::Tensor& hidden) const {
  const auto [normed, residual] = ops::branch_rms_norm(hidden, mlp_norm, norm_epsilon_);
  return feed_forward(normed, residual);
}

std::vector<at::Tensor> Block::trained(Recompute part) const {
  std::vector<at::Tensor> leaves;
  const auto collect = [&](const std::string&, at::Tensor& value) {
    if (value.requires_grad()) leaves.push_back(value);
  };
  auto& self = const_cast<Block&>(*this);  // visit() hands tensors out to be replaced; here they are only read
  if (part == Recompute::block) {
    self.visit("", collect);
  } else {
    at::Tensor norm = mixer_norm;
    collect("", norm);
    self.mixer().visit("", collect);
  }
  return leaves;
}

at::Tensor Block::forward(const at::Tensor& hidden, const PackedBatch& batch, Recompute recompute, const std::string& name,
                          Taps* taps) const {
  if (bypass == Bypass::none && recompute != Recompute::none && !(taps && taps->wants_below(name))) {
    if (recompute == Recompute::block) {
      return recomputed([this, batch](const at::Tensor& input) { return forward(input, batch, Recompute::none, "", nullptr); },
                        hidden, trained(recompute));
    }
    const auto norm_and_mix = [this, batch](const at::Tensor& input) {
      return mixer().forward(ops::rms_norm(input, mixer_norm, norm_epsilon_), batch);
    };
    return finish(recomputed(norm_and_mix, hidden, trained(recompute)), hidden);
  }

  const auto offer = [&](const char* what, const at::Tensor& value) {
    if (taps) taps->offer(name + what, value);
  };
  offer(".input", hidden);
  at::Tensor output = hidden;
  if (bypass == Bypass::mixer) {
    output = mlp_alone(hidden);
  } else if (bypass == Bypass::none) {
    const auto [normed, residual] = ops::branch_rms_norm(hidden, mixer_norm, norm_epsilon_);
    offer(".mixer.input", normed);
    const at::Tensor mixed = mixer().forward(normed, batch);
    offer(".mixer.output", mixed);
    output = finish(mixed, residual);
  }
  offer(".output", output);
  return output;
}

at::Tensor Block::extend(const at::Tensor& hidden, const Step& step, BlockCache& cache) const {
  if (bypass == Bypass::block) return hidden;
  if (bypass == Bypass::mixer) return mlp_alone(hidden);
  return finish(mixer().extend(ops::rms_norm(hidden, mixer_norm, norm_epsilon_), step, cache), hidden);
}

void Block::visit(const std::string& prefix, const ParameterVisitor& visitor) {
  for (auto& [name, mixer] : mixers_) mixer->visit(prefix + ".mixers." + name, visitor);
  if (config_.identity) return;
  visitor(prefix + ".mixer_norm.weight", mixer_norm);
  visitor(prefix + ".mlp_norm.weight", mlp_norm);
  gate_up.visit(prefix + ".mlp.gate_up", visitor);
  down.visit(prefix + ".mlp.down", visitor);
}

void Block::initialise(const InitialiseOptions& options) {
  for (auto& [name, mixer] : mixers_) {
    InitialiseOptions own = options;
    own.seed = derive_seed(options.seed, name);
    mixer->initialise(own);
  }
  for (at::Tensor* norm : {&mixer_norm, &mlp_norm}) {
    fill_if_meta(*norm, [](at::IntArrayRef sizes) { return at::ones(sizes, at::kFloat); });
  }
  for (const auto& [name, linear] : {std::pair("gate_up", &gate_up), std::pair("down", &down)}) {
    fill_if_meta(linear->weight, [&, name = name](at::IntArrayRef sizes) {
      return random_normal(sizes, options.standard_deviation, derive_seed(options.seed, name));
    });
    fill_if_meta(linear->bias, [](at::IntArrayRef sizes) { return at::zeros(sizes, at::kFloat); });
  }
}

bool Block::keeps_fp32(const std::string& parameter) const {
  for (const auto& [name, mixer] : mixers_) {
    const std::string prefix = "mixers." + name + ".";
    if (parameter.starts_with(prefix)) return mixer->keeps_fp32(parameter.substr(prefix.size()));
  }
  return false;
}

double Block::flops(std::int64_t context) const {
  if (bypass == Bypass::block) return 0;
  const double mlp = 2.0 * static_cast<double>(gate_up.weight.numel() + down.weight.numel());
  return mlp + (bypass == Bypass::mixer ? 0.0 : mixer().flops(context));
}

double Block::kept_states(std::int64_t tokens, at::ScalarType dtype, at::Device device) const {
  return bypass == Bypass::none ? mixer().kept_states(tokens, dtype, device) : 0;
}

void Block::set_mixer(const std::string& name, std::unique_ptr<Mixer> mixer) {
  MOLT_CHECK(!config_.identity, "an identity block has no norms or MLP for a mixer");
  config_.mixers[name] = mixer->config().clone();
  config_.active = name;
  mixers_[name] = std::move(mixer);
}

void Block::drop_inactive() {
  std::erase_if(mixers_, [&](const auto& entry) { return entry.first != config_.active; });
  std::erase_if(config_.mixers, [&](const auto& entry) { return entry.first != config_.active; });
}

void Block::activate(const std::string& name) {
  MOLT_CHECK(mixers_.count(name), "no mixer named ", name);
  config_.active = name;
}

}  // namespace molt
