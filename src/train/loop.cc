#include "train/loop.h"

#include <ATen/Context.h>
#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <torch/headeronly/version.h>

#include <chrono>
#include <cmath>
#include <mutex>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/progress.h"
#include "formats/safetensors.h"
#include "train/checkpoint.h"
#include "train/metrics.h"
#include "train/patterns.h"
#include "train/resolved_config.h"
#include "train/run_lock.h"

namespace molt {

namespace train_loop {

using Clock = std::chrono::steady_clock;

Recompute recompute_of(const std::string& word) {
  if (word == "mixer") return Recompute::mixer;
  return word == "block" ? Recompute::block : Recompute::none;
}

// How many tokens a token sees on average, itself included.
std::int64_t mean_context(const Sequences& sequences) {
  double pairs = 0;
  for (std::int64_t i = 0; i < sequences.count(); ++i) {
    const auto length = static_cast<double>(sequences.length(i));
    pairs += length * (length + 1) / 2;
  }
  return std::max<std::int64_t>(1, std::llround(pairs / static_cast<double>(std::max<std::int64_t>(sequences.tokens(), 1))));
}

AdamW make_optimizer(const LoopConfig& config, Model& model) {
  std::vector<std::string> names;
  for (const Parameter& parameter : model.parameters()) names.push_back(parameter.name);
  const std::set<std::string> chosen = select_names(config.trainable, names, "training.trainable");
  return AdamW(config.optimizer, flatten_trainable([&](const ParameterVisitor& visitor) { model.visit(visitor); },
                                                   [&](const std::string& name) { return chosen.contains(name); }));
}

// In optimizer.safetensors.
std::string random_name(at::Device device) {
  return "random." + c10::DeviceTypeName(device.type(), /*lower_case=*/true);
}

// A step whose figures are still on the device: reading them would wait for it.
struct PendingStep {
  std::int64_t step = 0, tokens = 0;
  double weight = 0, flops = 0;
  at::Tensor loss, gradient_norm;          // fp64 and fp32 scalars
  std::map<std::string, at::Tensor> sums;  // fp64 scalars
  std::vector<PackedBatch> batches;        // on the CPU, kept for the case that the loss is not finite
};

class Trainer {
 public:
  Trainer(const LoopConfig& config, const LoopParts& parts)
      : config_(config),
        parts_(parts),
        lock_(parts.run),
        recompute_(recompute_of(config.recompute)),
        optimizer_(make_optimizer(config, parts.model)) {}

  LoopResult run();

 private:
  void start();
  bool resume();
  void restore(const Checkpoint& checkpoint);
  void step();
  void collect();
  void write_interval();
  void save();
  void evaluate();
  void evaluate_or_save();
  [[noreturn]] void stop_at_nonfinite(const PendingStep& step, double loss, double gradient_norm);

  bool due(std::int64_t every) const { return every > 0 && step_ % every == 0; }
  bool last() const { return step_ == config_.steps; }
  bool evaluation_due() const { return !parts_.evaluators.empty() && (last() || due(config_.evaluate_every)); }
  double learning_rate(std::int64_t step) const {
    return config_.optimizer.learning_rate * schedule_factor(config_.schedule, step, config_.steps);
  }
  std::vector<at::Device> random_devices() const;
  std::map<std::string, std::string> versions() const;

  const LoopConfig& config_;
  const LoopParts& parts_;
  const RunLock lock_;
  const Recompute recompute_;
  AdamW optimizer_;
  std::unique_ptr<RunLog> log_;
  std::vector<PendingStep> pending_;
  IntervalSums interval_;
  std::int64_t step_ = 0, tokens_ = 0;  // done
  double seconds_ = 0;
  double last_loss_ = 0;      // of the last step that was collected
  double interval_loss_ = 0;  // of the last line of metrics
  fs::path checkpoint_;
  std::int64_t saved_step_ = 0;  // of checkpoint_
};

LoopResult Trainer::run() {
  start();
  // A run stopped between a checkpoint and its evaluation owes it.
  if (step_ > 0 && evaluation_due() && log_->evaluated_step() < step_) evaluate();
  throw_if_interrupted();
  Progress progress("training", config_.steps, "steps");
  progress.update(step_);
  const bool on_cpu = parts_.model.device().is_cpu();
  while (!last()) {
    step();
    const bool interrupted = interrupt_signal() != 0;
    const bool save_now = last() || interrupted || due(config_.checkpoint_every);
    if (on_cpu || save_now || due(config_.log_every)) collect();
    if (last() || due(config_.log_every)) write_interval();
    progress.update(step_, concat("loss ", last_loss_, ", ", human_count(static_cast<double>(tokens_) / seconds_), " tokens/s"));
    if (save_now) save();
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

void Trainer::start() {
  for (const at::Device device : random_devices()) {
    at::Generator generator = at::globalContext().defaultGenerator(device);
    const std::lock_guard<std::mutex> lock(generator.mutex());
    generator.set_current_seed(parts_.seed);
  }
  const bool resumed = resume();
  log_ = std::make_unique<RunLog>(parts_.run, step_);
  OrderedJson details = {{"step", step_},
                         {"objective", parts_.objective.name()},
                         {"device", parts_.model.device().str()},
                         {"dtype", c10::toString(parts_.model.dtype())},
                         {"threads", at::get_num_threads()},
                         {"versions", versions()}};
  if (resumed) details["checkpoint"] = checkpoint_.string();
  log_->event(resumed ? "resume" : "start", details);
}

// Continues from the newest checkpoint that can be read.
bool Trainer::resume() {
  const std::vector<fs::path> checkpoints = list_checkpoints(parts_.run);
  keep_resolved_config(parts_.run, parts_.resolved_config, !checkpoints.empty());
  std::vector<std::pair<fs::path, std::string>> damaged;
  for (const fs::path& folder : checkpoints) {
    try {
      restore(read_checkpoint(folder));
      checkpoint_ = folder;
      break;
    } catch (const UserError& error) {
      damaged.emplace_back(folder, error.what());
    }
  }
  if (checkpoint_.empty() && !damaged.empty()) {
    fail(damaged[0].second, "; no checkpoint in ", damaged[0].first.parent_path().string(),
         " can be read: remove that folder to start anew");
  }
  for (const auto& [folder, reason] : damaged) {
    log_warning(
        concat(reason, "; continuing from ", checkpoint_.string(), ", the damaged one is now ", set_aside(folder).string()));
  }
  return !checkpoint_.empty();
}

void Trainer::restore(const Checkpoint& checkpoint) {
  const std::string folder = checkpoint.folder.string();
  std::vector<Parameter> state;
  std::map<std::string, at::Tensor> random;
  for (const Parameter& parameter : checkpoint.tensors) {
    if (parameter.name.starts_with("random.")) {
      random[parameter.name] = parameter.value;
    } else {
      state.push_back(parameter);
    }
  }
  IntervalSums interval = IntervalSums::from_json(*checkpoint.interval, folder + "/state.json: interval");
  parts_.source.restore(*checkpoint.data);
  optimizer_.restore(state, checkpoint.step, folder + "/optimizer.safetensors");
  interval_ = std::move(interval);
  step_ = saved_step_ = checkpoint.step;
  tokens_ = checkpoint.tokens;
  seconds_ = checkpoint.seconds;
  last_loss_ = interval_loss_ = checkpoint.loss;
  for (const at::Device device : random_devices()) {
    const auto found = random.find(random_name(device));
    if (found == random.end()) continue;
    at::Generator generator = at::globalContext().defaultGenerator(device);
    const std::lock_guard<std::mutex> lock(generator.mutex());
    generator.set_state(found->second.clone());
  }
  if (checkpoint.threads != at::get_num_threads()) {
    log_warning(concat(folder, ": the run used ", checkpoint.threads, " threads, now it has ", at::get_num_threads(),
                       ": its numbers may differ in the last digits from those of an uninterrupted run"));
  }
}

void Trainer::step() {
  const Clock::time_point begin = Clock::now();
  const at::Device device = parts_.model.device();
  PendingStep pending;
  pending.step = step_;
  optimizer_.zero_gradients();
  for (std::int64_t i = 0; i < config_.micro_batches; ++i) {
    const PackedBatch batch = parts_.source.next(config_.micro_batch_tokens);
    const Objective::Loss loss = parts_.objective.loss(parts_.model, batch.to(device), recompute_);
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
  require(pending.weight > 0, "training data: found no token with a loss weight in the ", pending.tokens, " tokens of step ",
          step_ + 1, ", expected at least one");
  pending.gradient_norm = optimizer_.step(learning_rate(step_), pending.weight);
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
    for (const auto& [name, sum] : step.sums) scalars.push_back(sum);
  }
  const at::Tensor host = at::stack(scalars).cpu();
  const double* value = host.const_data_ptr<double>();
  for (const PendingStep& step : pending_) {
    const double loss = *value++, gradient_norm = *value++;
    if (!std::isfinite(loss) || !std::isfinite(gradient_norm)) stop_at_nonfinite(step, loss / step.weight, gradient_norm);
    interval_.steps += 1;
    interval_.tokens += step.tokens;
    interval_.loss += loss;
    interval_.weight += step.weight;
    interval_.gradient_norm += gradient_norm;
    interval_.flops += step.flops;
    for (const auto& [name, sum] : step.sums) interval_.sums[name] += *value++;
    last_loss_ = loss / step.weight;
  }
  pending_.clear();
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  interval_.seconds += seconds;
  seconds_ += seconds;
}

void Trainer::write_interval() {
  interval_loss_ = interval_.mean_loss();
  log_->interval(interval_, {step_, tokens_, seconds_, learning_rate(step_ - 1), memory_in_use(parts_.model.device())});
  interval_ = {};
}

void Trainer::save() {
  Checkpoint checkpoint;
  checkpoint.step = step_;
  checkpoint.tokens = tokens_;
  checkpoint.seconds = seconds_;
  checkpoint.threads = at::get_num_threads();
  checkpoint.device = parts_.model.device().str();
  checkpoint.dtype = c10::toString(parts_.model.dtype());
  checkpoint.versions = versions();
  checkpoint.loss = interval_.steps > 0 ? interval_.mean_loss() : interval_loss_;
  checkpoint.data = std::make_shared<const Json>(parts_.source.position());
  checkpoint.interval = std::make_shared<const Json>(interval_.to_json());
  checkpoint.tensors = optimizer_.state();
  for (const at::Device device : random_devices()) {
    at::Generator generator = at::globalContext().defaultGenerator(device);
    const std::lock_guard<std::mutex> lock(generator.mutex());
    checkpoint.tensors.push_back({random_name(device), generator.get_state()});
  }
  checkpoint_ = save_checkpoint(parts_.run, checkpoint, [&](const fs::path& folder) {
    if (parts_.export_model) parts_.export_model(parts_.model, folder);
  });
  saved_step_ = step_;
  log_->event("checkpoint", {{"step", step_}, {"loss", checkpoint.loss}, {"path", checkpoint_.string()}});
  prune_checkpoints(parts_.run, config_.keep_checkpoints);
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
    if (saved_step_ < step_) {
      collect();
      save();
    }
    log_->event("interrupted", {{"step", step_}});
    throw;
  }
}

void Trainer::stop_at_nonfinite(const PendingStep& step, double loss, double gradient_norm) {
  const fs::path path = parts_.run / concat("nonfinite_step_", step.step + 1, ".safetensors");
  NamedTensors tensors;
  for (std::size_t i = 0; i < step.batches.size(); ++i) {
    const PackedBatch& batch = step.batches[i];
    const std::string prefix = concat("micro_batch_", i, ".");
    tensors.insert(tensors.end(), {{prefix + "tokens", batch.tokens},
                                   {prefix + "targets", batch.targets},
                                   {prefix + "loss_weights", batch.loss_weights},
                                   {prefix + "positions", batch.positions},
                                   {prefix + "cu_seqlens", batch.sequences.cu_seqlens}});
  }
  write_safetensors(path, tensors);
  log_->event(
      "nonfinite",
      {{"step", step.step + 1}, {"loss", concat(loss)}, {"gradient_norm", concat(gradient_norm)}, {"batch", path.string()}});
  fail(parts_.run.string(), ": step ", step.step + 1, ": found a loss of ", loss, " and a gradient norm of ", gradient_norm,
       ", expected finite numbers; the step's batches are in ", path.string(), ", ",
       checkpoint_.empty() ? "no checkpoint was saved yet" : concat("the last checkpoint is ", checkpoint_.string()),
       "; a lower learning_rate, more warmup or a smaller clip_norm may help");
}

// Seeds are explicit everywhere; LibTorch's own generators are kept for components that draw from them all the same.
std::vector<at::Device> Trainer::random_devices() const {
  std::vector<at::Device> devices = {at::Device(at::kCPU)};
  if (!parts_.model.device().is_cpu()) devices.push_back(parts_.model.device());
  return devices;
}

std::map<std::string, std::string> Trainer::versions() const {
  std::map<std::string, std::string> result = parts_.versions;
  result["torch"] = TORCH_VERSION;
  return result;
}

}  // namespace train_loop

LoopResult train(const LoopConfig& config, const LoopParts& parts) {
  return train_loop::Trainer(config, parts).run();
}

}  // namespace molt
