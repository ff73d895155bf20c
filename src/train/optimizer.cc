#include "train/optimizer.h"

#include <ATen/Functions.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <map>

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

namespace adamw {

bool needs_master(const at::Tensor& values) {
  return values.scalar_type() != at::kFloat && values.scalar_type() != at::kDouble;
}

// The norm of a flat tensor in one threaded pass: by rows first, because LibTorch reduces to a single number on one thread and
// with one fp32 sum.
at::Tensor norm_of(const at::Tensor& flat) {
  constexpr std::int64_t row = 1024;
  const std::int64_t rows = flat.numel() / row;
  const at::ScalarType type = flat.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor head = at::linalg_vector_norm(flat.narrow(0, 0, rows * row).view({rows, row}), 2, {1}, false, type);
  const at::Tensor tail = at::linalg_vector_norm(flat.slice(0, rows * row), 2, std::nullopt, false, type);
  return at::linalg_vector_norm(at::cat({head, tail.reshape({1})}).to(at::kDouble), 2);
}

}  // namespace adamw

AdamW::AdamW(const OptimizerConfig& config, std::vector<FlatBuffer> buffers) : config_(config), buffers_(std::move(buffers)) {
  std::vector<std::vector<UpdateRange>> ranges = update_ranges(config_, buffers_);
  for (std::size_t i = 0; i < buffers_.size(); ++i) {
    const FlatBuffer& buffer = buffers_[i];
    Unit unit;
    const bool master = adamw::needs_master(buffer.values);
    const at::TensorOptions options = buffer.values.options().dtype(master ? at::kFloat : buffer.values.scalar_type());
    unit.moment1 = at::zeros(buffer.values.sizes(), options);
    const bool muon = uses_muon(config_, buffer.pieces.at(0).name, buffer.pieces[0].value);
    if (!muon) unit.moment2 = at::zeros(buffer.values.sizes(), options);
    if (master) unit.master = buffer.values.detach().to(at::kFloat);
    unit.ranges = std::move(ranges[i]);
    units_.push_back(std::move(unit));
  }
}

const at::Tensor& AdamW::weights(std::size_t buffer) const {
  return units_[buffer].master.defined() ? units_[buffer].master : buffers_[buffer].values;
}

void AdamW::zero_gradients() {
  for (FlatBuffer& buffer : buffers_) molt::zero_gradients(buffer);
}

at::Tensor AdamW::gradient_norm() const {
  std::vector<at::Tensor> norms;
  for (const FlatBuffer& buffer : buffers_) norms.push_back(adamw::norm_of(buffer.gradients));
  return norms.size() == 1 ? norms[0] : at::linalg_vector_norm(at::stack(norms), 2);
}

at::Tensor AdamW::step(double learning_rate, double divisor, const at::Tensor& limit) {
  const c10::NoGradGuard no_grad;
  MOLT_CHECK(divisor > 0, "gradients are divided by ", divisor);
  const at::Tensor norm = gradient_norm() / divisor;
  // The update divides each gradient by `scale`: the mean over loss tokens and the clipping cost no pass of their own.
  at::Tensor scale = at::full_like(norm, divisor);
  if (config_.clip_norm > 0) scale.mul_((norm / config_.clip_norm).clamp_min(1.0));
  scale = scale.to(at::kFloat);
  at::Tensor broken = at::isfinite(norm).logical_not();
  if (limit.defined()) broken.logical_or_(norm > limit);
  broken = broken.to(at::kFloat);
  ++steps_done_;
  const at::Tensor steps = at::full_like(scale, static_cast<double>(steps_done_));
  for (std::size_t i = 0; i < buffers_.size(); ++i) {
    if (units_[i].moment2.defined())
      update(i, learning_rate, steps, scale, broken);
    else
      update_by_muon(i, learning_rate, scale, broken);
    if (units_[i].master.defined()) buffers_[i].values.copy_(units_[i].master);
  }
  return norm.to(at::kFloat);
}

void AdamW::update(std::size_t index, double learning_rate, const at::Tensor& steps, const at::Tensor& scale,
                   const at::Tensor& broken) {
  const Unit& unit = units_[index];
  std::map<std::pair<double, double>, std::vector<UpdateRange>> alike;  // by weight decay and factor, one call each
  for (const UpdateRange& range : unit.ranges) alike[{range.weight_decay, range.learning_rate_factor}].push_back(range);
  for (const auto& [settings, ranges] : alike) {
    std::vector<at::Tensor> values, gradients, moments1, moments2;
    for (const UpdateRange& range : ranges) {
      const auto part = [&](const at::Tensor& flat) { return flat.narrow(0, range.begin, range.end - range.begin); };
      values.push_back(part(weights(index)));
      gradients.push_back(part(buffers_[index].gradients));
      moments1.push_back(part(unit.moment1));
      moments2.push_back(part(unit.moment2));
    }
    at::_fused_adamw_(values, gradients, moments1, moments2, {}, std::vector<at::Tensor>(values.size(), steps),
                      learning_rate * settings.second, config_.beta1, config_.beta2, settings.first, config_.epsilon,
                      /*amsgrad=*/false, /*maximize=*/false, scale, broken);
  }
}

void AdamW::update_by_muon(std::size_t index, double learning_rate, const at::Tensor& scale, const at::Tensor& broken) {
  const std::vector<FlatBuffer::Piece>& pieces = buffers_[index].pieces;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const UpdateRange& range = units_[index].ranges[i];
    const auto part = [&](const at::Tensor& flat) {
      return flat.narrow(0, pieces[i].offset, pieces[i].value.numel()).view(pieces[i].value.sizes());
    };
    muon_update(part(weights(index)), part(units_[index].moment1), part(buffers_[index].gradients),
                {learning_rate * range.learning_rate_factor, config_.momentum, range.weight_decay, scale, broken});
  }
}

std::vector<Parameter> AdamW::state() const {
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

void AdamW::restore(const std::vector<Parameter>& saved, std::int64_t steps_done, const std::string& place) {
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
