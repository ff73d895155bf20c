#include "model/model.h"

#include <ATen/Functions.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <map>
#include <set>
#include <tuple>
#include <utility>

#include "base/error.h"
#include "base/random.h"
#include "model/initialise.h"
#include "ops/embedding/embedding.h"
#include "ops/rms_norm/rms_norm.h"
#include "ops/skinny_linear/skinny_linear.h"

namespace molt {

Model::Model(ModelConfig config) : config_(std::move(config)) {
  require(config_.hidden_size > 0, "hidden_size: found ", config_.hidden_size, ", expected at least 1");
  require(config_.vocabulary > 0, "vocabulary: found ", config_.vocabulary, ", expected at least 1");
  config_.rotary.check("rotary");
  const auto meta = at::TensorOptions(at::kMeta).dtype(at::kFloat);
  embedding = at::empty({config_.vocabulary, config_.hidden_size}, meta);
  final_norm = at::empty({config_.hidden_size}, meta);
  if (!config_.tied_embeddings) head = Linear(config_.hidden_size, config_.vocabulary, false);
  for (std::size_t i = 0; i < config_.blocks.size(); ++i) {
    try {
      blocks.emplace_back(config_.blocks[i], config_);
    } catch (const UserError& error) {
      fail("layer ", i, ": ", error.what());
    }
    config_.blocks[i] = blocks.back().config();
  }
  prepare_rotary(at::kCPU);
}

void Model::prepare_rotary(at::Device device) {
  rotary_width_ = 0;
  for (const Block& block : blocks) rotary_width_ = std::max(rotary_width_, block.mixer().rotary_width());
  if (rotary_width_ > 0) rotary_ = config_.rotary.frequencies(rotary_width_, device);
}

ops::RotaryTable Model::rotary_table(const at::Tensor& positions, const Sequences& sequences) const {
  if (rotary_width_ == 0) return {};
  const bool ready = rotary_.inverse_frequencies.device() == positions.device();
  return config_.rotary.table(ready ? rotary_ : config_.rotary.frequencies(rotary_width_, positions.device()), positions,
                              sequences);
}

at::Tensor Model::forward(const PackedBatch& given, Recompute recompute, Taps* taps) const {
  PackedBatch batch = given;
  batch.rotary = rotary_table(batch.positions, batch.sequences);
  at::Tensor hidden = at::embedding(embedding, batch.tokens);
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    hidden = blocks[i].forward(hidden, batch, recompute, taps ? concat("layers.", i) : "", taps);
  }
  hidden = ops::rms_norm(hidden, final_norm, config_.norm_epsilon);
  if (taps) taps->offer("final", hidden);
  return hidden;
}

at::Tensor Model::logits(const at::Tensor& hidden) const {
  if (ops::has_skinny_kernel(hidden, head_weight())) return ops::skinny_linear(hidden, head_weight());
  return at::mm(hidden, head_weight().t());
}

at::Tensor Model::extend(const Step& given, std::vector<BlockCache>& caches) const {
  c10::InferenceMode no_gradients;
  Step step = given;
  step.rotary = rotary_table(step.positions, step.sequences);
  at::Tensor hidden = ops::embedding_rows(embedding, step.tokens);
  for (std::size_t i = 0; i < blocks.size(); ++i) hidden = blocks[i].extend(hidden, step, caches[i]);
  return ops::rms_norm(hidden, final_norm, config_.norm_epsilon);
}

std::vector<std::vector<CacheEntry>> Model::cache_spec() const {
  std::vector<std::vector<CacheEntry>> specs;
  for (const Block& block : blocks) specs.push_back(block.mixer().cache_spec());
  return specs;
}

void Model::visit(const ParameterVisitor& visitor) {
  visitor("embedding.weight", embedding);
  for (std::size_t i = 0; i < blocks.size(); ++i) blocks[i].visit(concat("layers.", i), visitor);
  visitor("final_norm.weight", final_norm);
  if (!config_.tied_embeddings) head.visit("head", visitor);
}

std::vector<Parameter> Model::parameters() {
  return collect_parameters([this](const ParameterVisitor& visitor) { visit(visitor); });
}

bool Model::keeps_fp32(const std::string& name) const {
  if (!name.starts_with("layers.")) return false;
  std::size_t end = 0;
  const auto layer = std::stoull(name.substr(7), &end);
  return blocks.at(layer).keeps_fp32(name.substr(7 + end + 1));
}

void Model::initialise(const InitialiseOptions& options, at::Device device, at::ScalarType dtype) {
  c10::AutoGradMode no_recording(false);
  // Part by part, so that a large model's fp32 numbers never exist as a whole.
  const auto fill = [&](const std::function<void(const ParameterVisitor&)>& visit_part, const std::function<void()>& draw) {
    std::set<std::string> fresh;
    visit_part([&](const std::string& name, at::Tensor& value) {
      if (value.is_meta()) fresh.insert(name);
    });
    draw();
    visit_part([&](const std::string& name, at::Tensor& value) {
      if (fresh.count(name)) value = value.to(device, stored_dtype(name, dtype));
    });
  };
  const auto whole = [&](const char* name, at::Tensor& tensor, bool random) {
    fill([&](const ParameterVisitor& visitor) { visitor(name, tensor); },
         [&] {
           fill_if_meta(tensor, [&](at::IntArrayRef sizes) {
             return random ? random_normal(sizes, options.standard_deviation, derive_seed(options.seed, name))
                           : at::ones(sizes, at::kFloat);
           });
         });
  };
  whole("embedding.weight", embedding, true);
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    InitialiseOptions own = options;
    own.seed = derive_seed(options.seed, "layers", i);
    fill([&](const ParameterVisitor& visitor) { blocks[i].visit(concat("layers.", i), visitor); },
         [&] { blocks[i].initialise(own); });
  }
  whole("final_norm.weight", final_norm, false);
  if (!config_.tied_embeddings) whole("head.weight", head.weight, true);
  prepare_rotary(device);
}

at::ScalarType Model::stored_dtype(const std::string& name, at::ScalarType dtype) const {
  return keeps_fp32(name) && dtype != at::kDouble ? at::kFloat : dtype;
}

void Model::to(at::Device device, at::ScalarType dtype) {
  c10::AutoGradMode no_recording(false);
  using Place = std::tuple<const void*, std::vector<std::int64_t>, at::ScalarType>;
  std::map<Place, at::Tensor> moved;
  visit([&](const std::string& name, at::Tensor& value) {
    const at::ScalarType target = at::isFloatingType(value.scalar_type()) ? stored_dtype(name, dtype) : value.scalar_type();
    if (value.is_meta()) {
      value = value.to(target);
      return;
    }
    at::Tensor& result = moved[{value.const_data_ptr(), value.sizes().vec(), target}];
    if (!result.defined()) result = value.to(device, target);
    value = result;
  });
  prepare_rotary(device);
}

std::unique_ptr<Model> Model::share() const {
  auto copy = std::make_unique<Model>(config_);
  auto& self = const_cast<Model&>(*this);  // visit() hands tensors out to be replaced; here they are only read
  std::vector<const Linear*> linears;
  self.visit(ParameterVisitor::of_linears([&](const std::string&, Linear& linear) { linears.push_back(&linear); }));
  std::size_t next_linear = 0;
  copy->visit(
      ParameterVisitor::of_linears([&](const std::string&, Linear& linear) { linear.share_extras(*linears[next_linear++]); }));
  std::vector<at::Tensor> tensors;
  self.visit([&](const std::string&, at::Tensor& value) { tensors.push_back(value); });
  std::size_t next = 0;
  copy->visit([&](const std::string&, at::Tensor& value) { value = tensors[next++].detach(); });
  copy->prepare_rotary(device());
  return copy;
}

void Model::to_fp8() {
  for (Block& block : blocks) {
    for (Linear* projection : block.mixer().projections()) projection->to_fp8();
    block.gate_up.to_fp8();
    block.down.to_fp8();
  }
}

void Model::merge_adapters() {
  visit(ParameterVisitor::of_linears([](const std::string&, Linear& linear) {
    linear.weight = linear.merged_weight();
    linear.adapters.clear();
  }));
}

double Model::flops(std::int64_t context) const {
  double total = 2.0 * static_cast<double>(head_weight().numel());
  for (const Block& block : blocks) total += block.flops(context);
  return total;
}

void Model::follow(std::int64_t layer) {
  const auto i = static_cast<std::size_t>(layer);
  config_.blocks[i] = blocks[i].config();
  prepare_rotary(device().is_meta() ? at::Device(at::kCPU) : device());
}

void Model::set_mixer(std::int64_t layer, const std::string& name, std::unique_ptr<Mixer> mixer) {
  blocks.at(static_cast<std::size_t>(layer)).set_mixer(name, std::move(mixer));
  follow(layer);
}

void Model::activate(std::int64_t layer, const std::string& name) {
  blocks.at(static_cast<std::size_t>(layer)).activate(name);
  follow(layer);
}

void Model::drop_inactive() {
  for (std::int64_t i = 0; i < config_.num_layers(); ++i) {
    blocks[static_cast<std::size_t>(i)].drop_inactive();
    follow(i);
  }
}

}  // namespace molt
