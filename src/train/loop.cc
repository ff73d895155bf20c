#include "train/loop.h"

#include <ATen/Functions.h>

#include <chrono>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/counted.h"
#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/progress.h"
#include "formats/safetensors.h"
#include "train/deterministic.h"
#include "train/layer_norms.h"
#include "train/trainer.h"

namespace molt {

namespace train_loop {

using Clock = std::chrono::steady_clock;

constexpr double kNoLimit = std::numeric_limits<double>::infinity();
constexpr std::int64_t kMostWithoutLoss = 1000;  // micro-batches in a row without a loss token that a step reads past

// How many tokens a token sees on average, itself included.
std::int64_t mean_context(const Sequences& sequences) {
  double pairs = 0;
  for (std::int64_t i = 0; i < sequences.count(); ++i) {
    const auto length = static_cast<double>(sequences.length(i));
    pairs += length * (length + 1) / 2;
  }
  return std::max<std::int64_t>(1, std::llround(pairs / static_cast<double>(std::max<std::int64_t>(sequences.tokens(), 1))));
}

// Without the sign that a figure which is not a number may have, which would be shown.
double plain(double figure) {
  return std::isnan(figure) ? std::numeric_limits<double>::quiet_NaN() : figure;
}

LoopResult Trainer::run() {
  start();
  // A run stopped between a checkpoint and its evaluation owes it.
  if (step_ > 0 && evaluation_due() && log_->evaluated_step() < step_) evaluate();
  throw_if_interrupted();
  Progress progress("training", horizon_.total(), horizon_.unit());
  const auto done = [&] { return config_.tokens > 0 ? tokens_ : step_; };
  progress.update(done());
  const bool on_cpu = parts_.model.device().is_cpu();
  while (!last()) {
    step();
    const bool interrupted = interrupt_signal() != 0;
    if (on_cpu || horizon_.window_ends(step_)) collect();  // it may end the run
    const bool save_now = last() || interrupted || due(config_.checkpoint_every);
    if (save_now || due(config_.log_every)) collect();
    if (last() || due(config_.log_every)) write_interval();
    progress.update(done(), note());
    note_checkpoint(/*wait=*/false);
    if (save_now) save();
    if (last() || interrupted) note_checkpoint(true);
    if (interrupted) {
      log_->event("interrupted", {{"step", step_}});
      throw_if_interrupted();
    }
    if (evaluation_due()) evaluate_or_save();
  }
  progress.finish();
  log_->event("end", {{"step", step_}, {"loss", interval_loss_}, {"seconds", seconds_}, {"versions", versions()}});
  return {step_, interval_loss_, log_->last_evaluation(), checkpoint_};
}

void Trainer::step() {
  const Clock::time_point begin = Clock::now();
  const at::Device device = parts_.model.device();
  PendingStep pending;
  pending.step = step_;
  optimizer_.zero_gradients();
  // Where samples were cut, all of a step's may end inside their prompts: further ones are taken, so that the run goes on.
  const auto goes_on = [&](std::int64_t taken) {
    return taken < config_.micro_batches || (pending.weight == 0 && taken < config_.micro_batches + kMostWithoutLoss);
  };
  for (std::int64_t i = 0; goes_on(i); ++i) {
    const PackedBatch batch = parts_.source.next(config_.micro_batch_tokens);
    const Objective::Loss loss = parts_.objective.loss(parts_.model, batch.to(device), recompute_of(config_.recompute));
    if (loss.sum.requires_grad()) loss.sum.backward();  // a batch without any loss token has nothing to differentiate
    pending.weight += loss.weight;
    const auto add = [](at::Tensor& total, const at::Tensor& value) {
      const at::Tensor wide = value.detach().to(at::kDouble);
      total = total.defined() ? total + wide : wide;
    };
    add(pending.loss, loss.sum);
    for (const auto& [name, sum] : loss.sums) add(pending.sums[name], sum);
    pending.tokens += batch.size();
    pending.flops += static_cast<double>(batch.size()) * parts_.objective.flops(parts_.model, mean_context(batch.sequences));
    pending.batches.push_back(batch);
  }
  require(pending.weight > 0, "training data: found no token with a loss weight in the ", counted(pending.tokens, "token"),
          " of step ", step_ + 1, ", expected at least one");
  pending.limit = spike_limit_.value();
  pending.total_tokens = tokens_ + pending.tokens;
  const bool logs = horizon_.reached(step_ + 1, pending.total_tokens) || (step_ + 1) % config_.log_every == 0;
  if (config_.log_layer_norms && logs) {
    pending.layer_norms = layer_gradient_norms(optimizer_.buffers(), pending.weight);
  }
  learning_rate_ = config_.optimizer.learning_rate * horizon_.factor(step_, tokens_);
  pending.gradient_norm = optimizer_.step(learning_rate_, pending.weight, pending.limit);
  spike_limit_.observe(pending.gradient_norm);
  averages_.update();
  ++step_;
  tokens_ += pending.tokens;
  pending_.push_back(std::move(pending));
  // A GPU is still at work here; its time is counted when collect() waits for it.
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  interval_.seconds += seconds;
  seconds_ += seconds;
}

// Brings the figures of pending steps to the host, all with one copy.
void Trainer::collect() {
  if (pending_.empty()) return;
  const Clock::time_point begin = Clock::now();
  std::vector<at::Tensor> scalars;
  for (const PendingStep& step : pending_) {
    scalars.push_back(step.loss);
    scalars.push_back(step.gradient_norm.to(at::kDouble));
    scalars.push_back(step.limit.defined() ? step.limit.to(at::kDouble) : at::full_like(step.loss, kNoLimit));
    for (const auto& [name, sum] : step.sums) scalars.push_back(sum);
    for (const auto& [name, norm] : step.layer_norms) scalars.push_back(norm);
  }
  const at::Tensor host = at::stack(scalars).cpu();
  const double* value = host.const_data_ptr<double>();
  for (const PendingStep& step : pending_) {
    const double loss = value[0], gradient_norm = value[1], limit = value[2];
    value += 3;
    const bool finite = std::isfinite(loss) && std::isfinite(gradient_norm), good = finite && gradient_norm <= limit;
    if (!good) refuse(step, {finite ? "spike" : "nonfinite", plain(loss / step.weight), plain(gradient_norm), limit});
    interval_.steps += 1;
    interval_.tokens += step.tokens;
    interval_.flops += step.flops;
    interval_.skipped += good ? 0 : 1;
    skipped_in_a_row_ = good ? 0 : skipped_in_a_row_ + 1;
    if (good) {
      interval_.loss += loss;
      interval_.weight += step.weight;
      interval_.gradient_norm += gradient_norm;
      last_loss_ = loss / step.weight;
    }
    if (horizon_.observe(step.step + 1, step.total_tokens, good ? loss : 0, good ? step.weight : 0)) {
      log_->event("flat", {{"step", step.step + 1}, {"loss", horizon_.window_loss()}});
    }
    for (const auto& [name, sum] : step.sums) interval_.sums[name] += good ? *value : 0.0, ++value;
    layer_norms_.clear();
    for (const auto& [name, norm] : step.layer_norms) layer_norms_[name] = *value++;
  }
  pending_.clear();
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  interval_.seconds += seconds;
  seconds_ += seconds;
}

std::string Trainer::note() const {
  const std::string rate = concat(human_count(static_cast<double>(tokens_) / seconds_), " tokens/s");
  const std::string share = mfu_ > 0 ? concat(", ", std::llround(100 * mfu_), "% of peak FLOP/s") : "";
  return concat("loss ", last_loss_, ", ", rate, share);
}

void Trainer::write_interval() {
  interval_loss_ = interval_.mean_loss();
  mfu_ = log_->interval(interval_,
                        {.step = step_,
                         .tokens = tokens_,
                         .seconds = seconds_,
                         .learning_rate = learning_rate_,
                         .memory = memory_in_use(parts_.model.device()),
                         .step_tokens = config_.micro_batches * config_.micro_batch_tokens,
                         .peak_flops = peak_flops_},
                        layer_norms_);
  interval_ = {};
}

void Trainer::evaluate() {
  const c10::NoGradGuard no_grad;
  const Clock::time_point begin = Clock::now();
  Figures figures;
  for (Evaluator* evaluator : parts_.evaluators) {
    for (const auto& [name, value] : evaluator->evaluate(parts_.model)) figures[evaluator->name() + "." + name] = value;
  }
  log_->evaluation(step_, figures);
  OrderedJson details = {{"step", step_}, {"seconds", std::chrono::duration<double>(Clock::now() - begin).count()}};
  details["figures"] = figures;
  log_->event("evaluation", details);
}

// An evaluator that is interrupted must not cost the steps since the last checkpoint; the evaluation is made up for later.
void Trainer::evaluate_or_save() {
  try {
    evaluate();
  } catch (const Interrupted&) {
    note_checkpoint(/*wait=*/true);
    if (saved_step_ < step_) {
      collect();
      save();
      note_checkpoint(true);
    }
    log_->event("interrupted", {{"step", step_}});
    throw;
  }
}

// Micro-batch i's parts as "micro_batch_<i>.tokens" and so on.
void write_batches(const fs::path& path, const std::vector<PackedBatch>& batches) {
  NamedTensors tensors;
  for (std::size_t i = 0; i < batches.size(); ++i) {
    const PackedBatch& batch = batches[i];
    const std::string prefix = concat("micro_batch_", i, ".");
    tensors.insert(tensors.end(), {{prefix + "tokens", batch.tokens},
                                   {prefix + "targets", batch.targets},
                                   {prefix + "loss_weights", batch.loss_weights},
                                   {prefix + "positions", batch.positions},
                                   {prefix + "cu_seqlens", batch.sequences.cu_seqlens}});
  }
  write_safetensors(path, tensors);
}

// The weights are as they were before the step. Saves its batches; ends the run unless the guard lets it go on.
void Trainer::refuse(const PendingStep& step, const Refusal& refusal) {
  const bool spike = refusal.event == "spike";
  const bool skip = (spike ? config_.guard.spikes : config_.guard.nonfinite) == "skip";
  const bool too_many = skip && skipped_in_a_row_ >= config_.guard.most_skipped;
  if (!skip || too_many) note_checkpoint(/*wait=*/true);
  const fs::path path = parts_.run / concat(refusal.event, "_step_", step.step + 1, ".safetensors");
  write_batches(path, step.batches);
  OrderedJson details = {{"step", step.step + 1},
                         {"loss", concat(refusal.loss)},
                         {"gradient_norm", concat(refusal.gradient_norm)},
                         {"action", skip && !too_many ? "skip" : "stop"},
                         {"batch", path.string()}};
  if (spike) details["limit"] = refusal.limit;
  log_->event(refusal.event, details);
  const std::string found =
      concat(parts_.run.string(), ": step ", step.step + 1, ": found a loss of ", refusal.loss, " and a gradient norm of ",
             refusal.gradient_norm, ", expected ", spike ? concat("a norm of at most ", refusal.limit) : "finite numbers",
             "; the step's batches are in ", path.string());
  if (skip && !too_many) {
    log_warning(concat(found, "; the step is left out"));
    return;
  }
  fail(found, ", ", checkpoint_.empty() ? "no checkpoint was saved yet" : concat("the last checkpoint is ", checkpoint_.string()),
       too_many ? concat("; ", counted(skipped_in_a_row_, "step before it was", "steps before it were"), " left out") : "",
       "; a lower learning_rate, more warmup or a smaller clip_norm may help");
}

}  // namespace train_loop

LoopResult train(const LoopConfig& config, const LoopParts& parts) {
  const DeterministicScope deterministic(config.deterministic);
  return train_loop::Trainer(config, parts).run();
}

}  // namespace molt
