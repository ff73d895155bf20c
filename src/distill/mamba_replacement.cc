#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/progress.h"
#include "base/random.h"
#include "distill/paired.h"
#include "distill/ranking_file.h"
#include "distill/run_training.h"
#include "ops/linear_loss/linear_loss.h"
#include "train/patterns.h"

namespace molt {

namespace replacement {

// Batches with the teacher's final hidden states, which are the same for every candidate: kept while they fit into a GiB.
class Lessons {
 public:
  Lessons(std::shared_ptr<const Model> teacher, ops::LossMix mix) : teacher_(std::move(teacher)), mix_(mix) {}

  void add(std::vector<PackedBatch> batches) {
    for (PackedBatch& batch : batches) batches_.push_back(std::move(batch));
    states_.resize(batches_.size());
  }
  std::size_t size() const { return batches_.size(); }

  struct Loss {
    ops::LossResult result;
    PackedBatch batch;
  };
  Loss loss(const Model& student, std::size_t index) {
    const PackedBatch batch = batches_[index].to(student.device());
    const at::Tensor target = states(index, batch), hidden = student.forward(batch);
    return {ops::linear_loss(hidden, student.head_weight(), batch.targets, batch.loss_weights, mix_,
                             {target, teacher_->head_weight()}, loss_options(student, batch)),
            batch};
  }

 private:
  at::Tensor states(std::size_t index, const PackedBatch& batch) {
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

  std::shared_ptr<const Model> teacher_;
  ops::LossMix mix_;
  std::vector<PackedBatch> batches_;
  std::vector<at::Tensor> states_;
  std::size_t kept_ = 0;
};

class Replacement {
 public:
  Replacement(const RankConfig& config, const RankInputs& inputs)
      : config_(config), inputs_(inputs), training_(inputs.teacher, mix(config)), held_out_(inputs.teacher, mix(config)) {
    const std::int64_t vocabulary = inputs.model.config().vocabulary;
    require(vocabulary == inputs.teacher->config().vocabulary, inputs.place, ": the model has a vocabulary of ", vocabulary,
            " and its teacher of ", inputs.teacher->config().vocabulary, ", expected the same");
    const auto source =
        open_source(config.data, inputs.tokenizer, vocabulary, static_cast<std::uint64_t>(config.seed), inputs.place + ": data");
    held_out_.add(held_out_batches(*source, config.held_out_tokens, config.micro_batch_tokens));
    std::vector<PackedBatch> batches;
    for (std::int64_t i = 0; i < config.steps * config.micro_batches; ++i) {
      batches.push_back(source->next(config.micro_batch_tokens));
    }
    training_.add(std::move(batches));
  }

  SequenceSums divergence(const Model& student) {
    const c10::NoGradGuard no_grad;
    SequenceSums sums;
    for (std::size_t i = 0; i < held_out_.size(); ++i) {
      throw_if_interrupted();
      const Lessons::Loss loss = held_out_.loss(student, i);
      const bool reverse = config_.distillation_loss_implementation == "reverse_kl";
      sums.add(reverse ? loss.result.reverse_kl : loss.result.forward_kl, loss.batch);
    }
    return sums;
  }

  OrderedJson candidate(std::int64_t layer, const std::function<void(std::int64_t step)>& on_step) {
    const std::unique_ptr<Model> student = inputs_.model.share();
    convert_layers(*student, *inputs_.teacher, {layer}, config_.mixer,
                   derive_seed(static_cast<std::uint64_t>(config_.seed), "mmr"), inputs_.place + ": layers");
    const SequenceSums before = divergence(*student);
    Optimizer optimizer(config_.optimizer, trainable(*student, layer));
    std::int64_t trained = 0;
    for (const FlatBuffer& buffer : optimizer.buffers()) {
      for (const FlatBuffer::Piece& piece : buffer.pieces) trained += piece.value.numel();
    }
    const std::vector<double> losses = train(*student, optimizer, layer, on_step);
    const SequenceSums after = divergence(*student);
    return {{"layer", layer},           {"mixer", inputs_.model.config().blocks[static_cast<std::size_t>(layer)].mixer().type()},
            {"score", after.mean()},    {"standard_error", after.standard_error()},
            {"initial", before.mean()}, {"trained_parameters", trained},
            {"curve", curve(losses)}};
  }

 private:
  static ops::LossMix mix(const RankConfig& config) {
    ops::LossMix mix;
    (config.distillation_loss_implementation == "reverse_kl" ? mix.reverse_kl : mix.forward_kl) = 1;
    return mix;
  }

  std::vector<FlatBuffer> trainable(Model& student, std::int64_t layer) const {
    std::vector<std::string> patterns = config_.trainable, names;
    for (std::string& pattern : patterns) {
      if (const auto at = pattern.find("{layer}"); at != std::string::npos) pattern.replace(at, 7, std::to_string(layer));
    }
    for (const Parameter& parameter : student.parameters()) names.push_back(parameter.name);
    const std::set<std::string> chosen = select_names(patterns, names, inputs_.place + ": trainable");
    return flatten_trainable([&](const ParameterVisitor& visitor) { student.visit(visitor); },
                             [&](const std::string& name) { return chosen.contains(name); });
  }

  // The mean loss of each step.
  std::vector<double> train(Model& student, Optimizer& optimizer, std::int64_t layer,
                            const std::function<void(std::int64_t)>& on_step) {
    std::vector<double> losses;
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
      require(std::isfinite(sum), inputs_.place, ": layer ", layer, ": the loss of step ", step + 1, " is ", sum,
              ", expected a finite number; a lower optimizer.learning_rate may help");
      losses.push_back(sum / weight);
      optimizer.step(config_.optimizer.learning_rate * schedule_factor(config_.schedule, step, config_.steps), weight);
      on_step(step + 1);
    }
    return losses;
  }

  // [[step, mean loss since the entry before], …], at most 100 entries.
  static OrderedJson curve(const std::vector<double>& losses) {
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

  const RankConfig& config_;
  const RankInputs& inputs_;
  Lessons training_, held_out_;
};

}  // namespace replacement

void rank_by_replacing(const RankConfig& config, const RankInputs& inputs, const std::vector<std::int64_t>& layers,
                       RankingFile& file) {
  replacement::Replacement replacement(config, inputs);
  if (!file.has_baseline()) {
    const SequenceSums now = replacement.divergence(inputs.model);
    file.set_baseline({{"score", now.mean()}, {"standard_error", now.standard_error()}, {"sequences", now.sums.size()}});
  }
  Progress progress("replacing layers", static_cast<std::int64_t>(layers.size()) * config.steps, "steps");
  std::int64_t done = 0;
  for (const std::int64_t layer : layers) {
    progress.update(done, concat("layer ", layer));
    if (!file.has(layer)) {
      file.add(replacement.candidate(layer, [&](std::int64_t step) { progress.update(done + step, concat("layer ", layer)); }));
    }
    done += config.steps;
  }
  progress.update(done);
}

}  // namespace molt
