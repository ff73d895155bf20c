#include "train/optimizer.h"

#include <ATen/Functions.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "base/error.h"
#include "train/muon.h"

namespace molt {

void OptimizerConfig::visit(ConfigVisitor& v) {
  v.choice("type", type, {"adamw", "muon"}, "adamw, or muon for matrices and AdamW for the rest");
  v.field("learning_rate", learning_rate, "Peak learning rate");
  v.field("beta1", beta1, "Decay of the mean of gradients");
  v.field("beta2", beta2, "Decay of the mean of squared gradients");
  v.field("epsilon", epsilon, "Added to the root of the mean of squares");
  v.field("weight_decay", weight_decay, "Decoupled weight decay of matrices");
  v.field("no_decay", no_decay, "Glob patterns of matrices without weight decay; vectors never have any");
  v.field("clip_norm", clip_norm, "Largest global norm of the gradient; 0: no clipping");
  v.field("momentum", momentum, "Of Muon");
  v.field("never_muon", never_muon, "Glob patterns of matrices that AdamW updates all the same");
  v.field("groups", groups, "Parameters that train otherwise than the rest; later groups go before earlier ones");
  if (!v.reading()) return;
  const auto expect = [&](bool holds, const char* key, double value, const char* expected) {
    require(holds, v.place(), ": ", key, ": found ", value, ", expected ", expected);
  };
  expect(learning_rate >= 0, "learning_rate", learning_rate, "a number from 0 up");
  expect(beta1 >= 0 && beta1 < 1, "beta1", beta1, "a number from 0 to below 1");
  expect(beta2 >= 0 && beta2 < 1, "beta2", beta2, "a number from 0 to below 1");
  expect(epsilon > 0, "epsilon", epsilon, "a positive number");
  expect(weight_decay >= 0, "weight_decay", weight_decay, "a number from 0 up");
  expect(clip_norm >= 0, "clip_norm", clip_norm, "a number from 0 up");
  expect(momentum >= 0 && momentum < 1, "momentum", momentum, "a number from 0 to below 1");
}

namespace optimizer_parts {

bool needs_master(const at::Tensor& values) {
  return values.scalar_type() != at::kFloat && values.scalar_type() != at::kDouble;
}

// The pieces of a buffer in groups of one shape and one range's settings, none larger than Muon's working memory should be.
std::vector<std::vector<std::size_t>> updated_together(const FlatBuffer& buffer, const std::vector<UpdateRange>& ranges) {
  constexpr std::int64_t most_values = 1 << 25;
  std::map<std::tuple<std::int64_t, std::int64_t, double, double>, std::vector<std::size_t>> alike;
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    const at::Tensor& value = buffer.pieces[i].value;
    alike[{value.size(0), value.size(1), ranges[i].learning_rate_factor, ranges[i].weight_decay}].push_back(i);
  }
  std::vector<std::vector<std::size_t>> groups;
  for (const auto& [key, pieces] : alike) {
    const auto most = static_cast<std::size_t>(std::max<std::int64_t>(1, most_values / (std::get<0>(key) * std::get<1>(key))));
    for (std::size_t begin = 0; begin < pieces.size(); begin += most) {
      const auto first = pieces.begin() + static_cast<std::ptrdiff_t>(begin);
      groups.emplace_back(first, first + static_cast<std::ptrdiff_t>(std::min(most, pieces.size() - begin)));
    }
  }
  return groups;
}

}  // namespace optimizer_parts

Optimizer::Optimizer(const OptimizerConfig& config, std::vector<FlatBuffer> buffers)
    : config_(config), buffers_(std::move(buffers)) {
  std::vector<std::vector<UpdateRange>> ranges = update_ranges(config_, buffers_);
  for (std::size_t i = 0; i < buffers_.size(); ++i) {
    const FlatBuffer& buffer = buffers_[i];
    Unit unit;
    const bool master = optimizer_parts::needs_master(buffer.values);
    const at::TensorOptions options = buffer.values.options().dtype(master ? at::kFloat : buffer.values.scalar_type());
    unit.moment1 = at::zeros(buffer.values.sizes(), options);
    const bool muon = uses_muon(config_, buffer.pieces.at(0).name, buffer.pieces[0].value);
    if (!muon) unit.moment2 = at::zeros(buffer.values.sizes(), options);
    if (master) unit.master = buffer.values.detach().to(at::kFloat);
    unit.ranges = std::move(ranges[i]);
    if (muon)
      unit.together = optimizer_parts::updated_together(buffer, unit.ranges);
    else
      unit.range_table = ops::adamw_ranges(unit.ranges, buffer.values.device());
    units_.push_back(std::move(unit));
  }
}

const at::Tensor& Optimizer::weights(std::size_t buffer) const {
  return units_[buffer].master.defined() ? units_[buffer].master : buffers_[buffer].values;
}

void Optimizer::zero_gradients() {
  for (FlatBuffer& buffer : buffers_) molt::zero_gradients(buffer);
}

at::Tensor Optimizer::step(double learning_rate, double divisor, const at::Tensor& limit) {
  const c10::NoGradGuard no_grad;
  std::vector<at::Tensor> gradients;
  for (const FlatBuffer& buffer : buffers_) gradients.push_back(buffer.gradients);
  const ops::GradientScale scale = ops::clip_gradients(gradients, divisor, config_.clip_norm, limit);
  ++steps_done_;
  for (std::size_t i = 0; i < buffers_.size(); ++i) {
    if (units_[i].moment2.defined())
      update(i, learning_rate, scale);
    else
      update_by_muon(i, learning_rate, scale);
  }
  return scale.norm;
}

void Optimizer::update(std::size_t index, double learning_rate, const ops::GradientScale& scale) {
  const Unit& unit = units_[index];
  ops::adamw({.weights = buffers_[index].values,
              .master = unit.master,
              .gradients = buffers_[index].gradients,
              .moment1 = unit.moment1,
              .moment2 = unit.moment2,
              .ranges = unit.range_table},
             {.learning_rate = learning_rate,
              .beta1 = config_.beta1,
              .beta2 = config_.beta2,
              .epsilon = config_.epsilon,
              .step = steps_done_},
             scale);
}

void Optimizer::update_by_muon(std::size_t index, double learning_rate, const ops::GradientScale& scale) {
  const std::vector<FlatBuffer::Piece>& pieces = buffers_[index].pieces;
  for (const std::vector<std::size_t>& group : units_[index].together) {
    std::vector<MuonMatrix> matrices;
    for (const std::size_t i : group) {
      const auto part = [&](const at::Tensor& flat) {
        return flat.narrow(0, pieces[i].offset, pieces[i].value.numel()).view(pieces[i].value.sizes());
      };
      matrices.push_back({part(weights(index)), part(units_[index].moment1), part(buffers_[index].gradients)});
    }
    const UpdateRange& range = units_[index].ranges[group.front()];
    muon_update(matrices,
                {learning_rate * range.learning_rate_factor, config_.momentum, range.weight_decay, scale.scale, scale.broken});
  }
  if (units_[index].master.defined()) buffers_[index].values.copy_(units_[index].master);
}

std::vector<Parameter> Optimizer::state() const {
  std::vector<Parameter> result;
  for (std::size_t i = 0; i < buffers_.size(); ++i) {
    const Unit& unit = units_[i];
    for (const FlatBuffer::Piece& piece : buffers_[i].pieces) {
      const auto part = [&](const at::Tensor& flat) {
        return flat.detach().narrow(0, piece.offset, piece.value.numel()).view(piece.value.sizes());
      };
      result.push_back({piece.name + ".moment1", part(unit.moment1)});
      if (unit.moment2.defined()) result.push_back({piece.name + ".moment2", part(unit.moment2)});
      result.push_back({piece.name + ".master", part(weights(i))});
    }
  }
  return result;
}

void Optimizer::restore(const std::vector<Parameter>& saved, std::int64_t steps_done, const std::string& place) {
  const c10::NoGradGuard no_grad;
  std::map<std::string, at::Tensor> by_name;
  for (const Parameter& parameter : saved) by_name[parameter.name] = parameter.value;
  const std::vector<Parameter> own = state();
  std::vector<at::Tensor> sources;
  for (const auto& [name, value] : own) {
    const auto found = by_name.find(name);
    require(found != by_name.end(), place, ": ", name, ": found no such tensor, expected the state of a trained parameter");
    const at::Tensor& source = found->second;
    require(source.sizes() == value.sizes() && source.scalar_type() == value.scalar_type(), place, ": ", name, ": found ",
            source.scalar_type(), " ", source.sizes(), ", expected ", value.scalar_type(), " ", value.sizes());
    sources.push_back(source);
    by_name.erase(found);
  }
  require(by_name.empty(), place, ": ", by_name.empty() ? "" : by_name.begin()->first,
          ": found the state of a parameter that is not trained here");
  for (std::size_t i = 0; i < own.size(); ++i) own[i].value.copy_(sources[i]);
  for (std::size_t i = 0; i < units_.size(); ++i) {
    if (units_[i].master.defined()) buffers_[i].values.copy_(units_[i].master);
  }
  steps_done_ = steps_done;
}

}  // namespace molt
