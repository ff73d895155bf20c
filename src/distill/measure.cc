#include "distill/measure.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/random.h"
#include "distill/costs.h"
#include "distill/objective.h"
#include "distill/on_policy.h"
#include "distill/run_training.h"
#include "formats/hugging_face.h"
#include "model/random_model.h"
#include "ops/device.h"
#include "train/deterministic.h"
#include "train/lora.h"

namespace molt {

namespace measuring {

constexpr int trial_batches = 4;  // the first one warms up

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

template <class Work>
double seconds_of(const Work& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

std::vector<PackedBatch> random_batches(std::int64_t vocabulary, std::int64_t tokens, std::int64_t length) {
  Random random(1);
  std::vector<PackedBatch> batches;
  for (int i = 0; i < trial_batches; ++i) {
    std::vector<PackedBatch::Sample> samples;
    for (std::int64_t left = tokens; left > 1; left -= std::min(left, length)) {
      PackedBatch::Sample sample;
      for (std::int64_t t = 0; t < std::min(left, length); ++t) {
        sample.tokens.push_back(static_cast<std::int32_t>(random.below(vocabulary)));
      }
      samples.push_back(std::move(sample));
    }
    batches.push_back(PackedBatch::of(samples));
  }
  return batches;
}

struct Trial {
  double batch_seconds = 0, batch_tokens = 0;  // of a micro-batch
  double step_seconds = 0;                     // of the optimizer
  double flop_seconds = 0;                     // of a useful FLOP of the micro-batch

  double seconds(const LoopConfig& loop) const {
    const auto batches = static_cast<double>(loop.micro_batches);
    const double steps = loop.tokens > 0 ? std::ceil(static_cast<double>(loop.tokens) / (batches * batch_tokens))
                                         : static_cast<double>(loop.steps);
    return steps * (batches * batch_seconds + step_seconds);
  }
};

Trial run(Model& student, Objective& objective, const LoopConfig& loop, const std::vector<PackedBatch>& batches,
          std::int64_t context) {
  const DeterministicScope deterministic(loop.deterministic);
  Optimizer optimizer = make_optimizer(loop, student);
  std::vector<double> of_batches, of_steps, tokens;
  double flops = 0;
  for (const PackedBatch& given : batches) {
    throw_if_interrupted();
    optimizer.zero_gradients();
    double weight = 0;
    const double batch_seconds = seconds_of([&] {
      const Objective::Loss loss = objective.loss(student, given.to(student.device()), recompute_of(loop.recompute));
      if (loss.sum.requires_grad()) loss.sum.backward();
      weight = loss.weight;
      loss.sum.item<double>();  // waits for a GPU
    });
    // A learning rate of 0: the weights stay what they are, and the work is the same.
    const double step_seconds = seconds_of([&] { optimizer.step(0, std::max(weight, 1.0)).item<double>(); });
    if (&given == &batches.front()) continue;
    of_batches.push_back(batch_seconds);
    of_steps.push_back(step_seconds);
    tokens.push_back(static_cast<double>(given.size()));
    flops = static_cast<double>(given.size()) * objective.flops(student, context);
  }
  Trial trial{median(of_batches), median(tokens), median(of_steps), 0};
  trial.flop_seconds = trial.batch_seconds / flops;
  return trial;
}

class Measurement {
 public:
  Measurement(const RecipeConfig& recipe, const ModelConfig& teacher, const std::string& place, const RecipePlan& plan)
      : recipe_(recipe),
        place_(place),
        context_(plan.context),
        device_(device_of(recipe.device, place + ": device")),
        dtype_(plan.dtype),
        configs_(stage_configs(recipe, teacher, place)),
        teacher_(random_model(teacher, device_, dtype_, 1)) {
    const fs::path folder = recipe.tokenizer.empty() ? recipe.teacher.pretrained.path : recipe.tokenizer;
    if (fs::exists(folder / "tokenizer.json")) tokenizer_ = Tokenizer::load(folder);
  }

  double seconds(const StageConfig& stage, const StagePlan& plan) const {
    const auto student = [&] { return random_model(configs_.at(stage.name), device_, dtype_, 2, {teacher_.get()}); };
    const std::unique_ptr<Objective> objective = make_objective(stage.head, live_teacher(teacher_));
    const std::unique_ptr<Model> trained = student();
    if (stage.lora) add_adapters(*trained, *stage.lora, 0, concat(place_, ": stage ", stage.name, ": lora"));
    const Trial training = run(*trained, *objective, stage.training, batches(stage, stage.training), context_);
    double seconds = training.seconds(stage.training) + plan.ranking_flops * training.flop_seconds;
    seconds += sampling_seconds(stage, *trained);
    if (!stage.match) return seconds;
    const std::vector<std::int64_t> fresh = converted(stage);
    if (fresh.empty()) return seconds;
    const std::unique_ptr<Model> matched = student();
    MixerMatching matching(teacher_, fresh);
    LoopConfig loop = *stage.match;
    loop.trainable =
        MixerMatching::trainable(*matched, fresh, loop.trainable, concat(place_, ": stage ", stage.name, ": match.trainable"));
    return seconds + run(*matched, matching, loop, batches(stage, loop), context_).seconds(loop);
  }

 private:
  // Of the student's own texts, which a model of random weights writes to their greatest length.
  double sampling_seconds(const StageConfig& stage, const Model& student) const {
    const auto& own = recipe_.data_of(stage).on_policy;
    if (!own) return 0;
    TextSampler sampler(student);
    std::vector<double> seconds;
    for (const PackedBatch& batch : batches(stage, stage.training)) {
      if (batch.loss_weight == 0 || seconds.size() == 2) continue;
      throw_if_interrupted();
      seconds.push_back(seconds_of([&] { continued_by(sampler, batch, {*own, {}, 1}, 0, stage.training.micro_batch_tokens); }));
    }
    if (seconds.empty()) return 0;
    const double batches = training_tokens(stage.training) / static_cast<double>(stage.training.micro_batch_tokens);
    return own->fraction * batches * seconds.back();  // the first one warmed up
  }

  // The layers that stand for those that the stage converts.
  std::vector<std::int64_t> converted(const StageConfig& stage) const {
    const std::vector<std::int64_t> before = attention_layers(configs_.at(stage.from)),
                                    after = attention_layers(configs_.at(stage.name));
    std::vector<std::int64_t> layers;
    std::set_difference(before.begin(), before.end(), after.begin(), after.end(), std::back_inserter(layers));
    return layers;
  }

  std::vector<PackedBatch> batches(const StageConfig& stage, const LoopConfig& loop) const {
    const std::int64_t vocabulary = teacher_->config().vocabulary;
    try {
      const auto source = open_source(recipe_.data_of(stage), tokenizer_, vocabulary, static_cast<std::uint64_t>(recipe_.seed),
                                      concat(place_, ": stage ", stage.name, ": data"));
      std::vector<PackedBatch> batches;
      for (int i = 0; i < trial_batches; ++i) batches.push_back(source->next(loop.micro_batch_tokens));
      return batches;
    } catch (const UserError& error) {
      if (!warned_) {
        log_warning(concat(error.what(), "; measured on random tokens instead, ", 2 * context_, " in a sequence"));
      }
      warned_ = true;
      return random_batches(vocabulary, loop.micro_batch_tokens, 2 * context_);
    }
  }

  const RecipeConfig& recipe_;
  const std::string& place_;
  std::int64_t context_;
  at::Device device_;
  at::ScalarType dtype_;
  std::map<std::string, ModelConfig> configs_;
  std::shared_ptr<const Model> teacher_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  mutable bool warned_ = false;
};

}  // namespace measuring

void measure_recipe(const RecipeConfig& recipe, const ModelConfig& teacher, const Machine& machine, const std::string& place,
                    RecipePlan& plan) {
  const auto fits = [&](const StagePlan& stage) { return stage.memory.total() <= machine.bytes; };
  if (std::none_of(plan.stages.begin(), plan.stages.end(), fits)) return;
  const measuring::Measurement measurement(recipe, teacher, place, plan);
  Progress progress("measuring", static_cast<std::int64_t>(plan.stages.size()), "stages");
  std::int64_t done = 0;
  for (StagePlan& stage : plan.stages) {
    if (fits(stage)) stage.seconds = measurement.seconds(*recipe.find(stage.name), stage);
    progress.update(++done, stage.name);
  }
}

}  // namespace molt
