#include "distill/candidate_training.h"

#include <ATen/Functions.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "base/interrupt.h"
#include "distill/run_training.h"
#include "train/patterns.h"

namespace molt {

Lessons::Lessons(const RankConfig& config, std::shared_ptr<const Model> teacher)
    : teacher_(std::move(teacher)), mix_(config.divergence.divergence()) {}

void Lessons::add(PackedBatch batch) {
  batches_.push_back(std::move(batch));
  states_.emplace_back();
}

Lessons::Loss Lessons::loss(const Model& student, std::size_t index) {
  const PackedBatch batch = batches_[index].to(student.device());
  const at::Tensor target = states(index, batch), hidden = student.forward(batch);
  return {ops::linear_loss(hidden, student.head_weight(), batch.targets, batch.loss_weights, mix_,
                           {target, teacher_->head_weight()}, loss_options(student, batch)),
          batch};
}

at::Tensor Lessons::states(std::size_t index, const PackedBatch& batch) {
  constexpr std::size_t limit = std::size_t{1} << 30;
  if (states_[index].defined()) return states_[index];
  const c10::NoGradGuard no_grad;
  const at::Tensor states = teacher_->forward(batch);
  if (kept_ + states.nbytes() <= limit) {
    kept_ += states.nbytes();
    states_[index] = states;
  }
  return states;
}

CandidateTraining::CandidateTraining(const RankConfig& config, const RankInputs& inputs)
    : config_(config), inputs_(inputs), training_(config, inputs.teacher), held_out_(config, inputs.teacher) {
  const std::int64_t vocabulary = inputs.model.config().vocabulary;
  require(vocabulary == inputs.teacher->config().vocabulary, inputs.place, ": the model has a vocabulary of ", vocabulary,
          " and its teacher of ", inputs.teacher->config().vocabulary, ", expected the same");
  source_ =
      open_source(config.data, inputs.tokenizer, vocabulary, static_cast<std::uint64_t>(config.seed), inputs.place + ": data");
  for (PackedBatch& batch : held_out_batches(*source_, config.held_out_tokens, config.micro_batch_tokens)) {
    held_out_.add(std::move(batch));
  }
}

std::shared_ptr<const Json> CandidateTraining::position() const {
  return std::make_shared<const Json>(source_->position());
}

void CandidateTraining::take_batches(const std::shared_ptr<const Json>& from) {
  if (from) source_->restore(*from);
  for (std::int64_t i = 0; i < config_.steps * config_.micro_batches; ++i) {
    training_.add(source_->next(config_.micro_batch_tokens));
  }
}

SequenceSums CandidateTraining::divergence(const Model& student) {
  const c10::NoGradGuard no_grad;
  SequenceSums sums;
  for (std::size_t i = 0; i < held_out_.size(); ++i) {
    throw_if_interrupted();
    const Lessons::Loss loss = held_out_.loss(student, i);
    sums.add(ops::weighted_divergence(loss.result, config_.divergence.divergence()), loss.batch);
  }
  return sums;
}

std::vector<std::string> patterns_of_layers(const std::vector<std::string>& patterns, const std::vector<std::int64_t>& layers) {
  constexpr std::string_view key = "{layer}";
  std::vector<std::string> result;
  for (const std::string& pattern : patterns) {
    const std::size_t at = pattern.find(key);
    if (at == std::string::npos) {
      result.push_back(pattern);
      continue;
    }
    for (const std::int64_t layer : layers) {
      result.push_back(std::string(pattern).replace(at, key.size(), std::to_string(layer)));
    }
  }
  return result;
}

CandidateTraining::Trained CandidateTraining::train(Model& student, const std::vector<std::int64_t>& layers,
                                                    const std::string& who,
                                                    const std::function<void(std::int64_t step)>& on_step) {
  std::vector<std::string> names;
  for (const Parameter& parameter : student.parameters()) names.push_back(parameter.name);
  const std::set<std::string> chosen =
      select_names(patterns_of_layers(config_.trainable, layers), names, inputs_.place + ": trainable");
  Optimizer optimizer(config_.optimizer, flatten_trainable([&](const ParameterVisitor& visitor) { student.visit(visitor); },
                                                           [&](const std::string& name) { return chosen.contains(name); }));
  Trained trained;
  for (const FlatBuffer& buffer : optimizer.buffers()) {
    for (const FlatBuffer::Piece& piece : buffer.pieces) trained.parameters += piece.value.numel();
  }
  for (std::int64_t step = 0; step < config_.steps; ++step) {
    throw_if_interrupted();
    optimizer.zero_gradients();
    double sum = 0, weight = 0;
    for (std::int64_t i = 0; i < config_.micro_batches; ++i) {
      const Lessons::Loss loss = training_.loss(student, static_cast<std::size_t>(step * config_.micro_batches + i));
      if (loss.result.sum.requires_grad()) loss.result.sum.backward();
      sum += loss.result.sum.item<double>();
      weight += loss.batch.loss_weight;
    }
    require(weight > 0, inputs_.place, ": data: found no token with a loss weight in a step of ", config_.micro_batches, " x ",
            config_.micro_batch_tokens, " tokens");
    require(std::isfinite(sum), inputs_.place, ": ", who, ": the loss of step ", step + 1, " is ", sum,
            ", expected a finite number; a lower optimizer.learning_rate may help");
    trained.losses.push_back(sum / weight);
    optimizer.step(config_.optimizer.learning_rate * schedule_factor(config_.schedule, step, config_.steps), weight);
    on_step(step + 1);
  }
  return trained;
}

OrderedJson loss_curve(const std::vector<double>& losses) {
  OrderedJson entries = OrderedJson::array();
  const std::size_t stride = (losses.size() + 99) / 100;
  double sum = 0;
  std::size_t from = 0;
  for (std::size_t step = 1; step <= losses.size(); ++step) {
    sum += losses[step - 1];
    if (step % stride != 0 && step != losses.size()) continue;
    entries.push_back({step, sum / static_cast<double>(step - from)});
    sum = 0;
    from = step;
  }
  return entries;
}

}  // namespace molt
