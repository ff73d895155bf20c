#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <torch/headeronly/version.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "base/counted.h"
#include "base/error.h"
#include "base/log.h"
#include "formats/hugging_face.h"
#include "train/peak_flops.h"
#include "train/random_state.h"
#include "train/trained_names.h"
#include "train/trainer.h"

namespace molt {

Optimizer make_optimizer(const LoopConfig& config, Model& model) {
  const std::set<std::string> chosen = trained_names(model, config.trainable, "training.trainable");
  return Optimizer(config.optimizer, flatten_trainable([&](const ParameterVisitor& visitor) { model.visit(visitor); },
                                                       [&](const std::string& name) { return chosen.contains(name); },
                                                       [&](const std::string& name, const at::Tensor& value) {
                                                         return uses_muon(config.optimizer, name, value);
                                                       }));
}

namespace train_loop {

Trainer::Trainer(const LoopConfig& config, const LoopParts& parts)
    : config_(config),
      parts_(parts),
      lock_(parts.run),
      optimizer_(make_optimizer(config, parts.model)),
      averages_(config.average_decay, optimizer_),
      spike_limit_(config.guard, parts.model.device()),
      horizon_(config),
      writer_(parts.run, {config.keep_checkpoints, config.keep_every}) {}

void Trainer::start() {
  seed_generators(parts_.model.device(), parts_.seed);
  const std::vector<ChangedKey> changes = resume();
  const bool resumed = !checkpoint_.empty();
  peak_flops_ =
      config_.peak_tflops ? *config_.peak_tflops * 1e12 : peak_flops(parts_.model.device(), parts_.model.dtype()).value_or(0);
  log_ = std::make_unique<RunLog>(parts_.run, step_, config_.tensorboard);
  OrderedJson details = {{"step", step_},
                         {"objective", parts_.objective.name()},
                         {"device", parts_.model.device().str()},
                         {"dtype", dtype_word(parts_.model.dtype())},
                         {"threads", at::get_num_threads()},
                         {"versions", versions()}};
  if (parts_.memory_plan) details["memory_plan"] = *parts_.memory_plan;
  if (resumed) details["checkpoint"] = checkpoint_.string();
  for (const ChangedKey& key : changes) details["changes"][key.path] = {key.before, key.after};
  log_->event(resumed ? "resume" : "start", details);
}

std::vector<ChangedKey> Trainer::resume() {
  std::vector<ChangedKey> changes;
  if (const std::optional<Checkpoint> newest = newest_checkpoint()) {
    changes = changes_since(*newest);
    require_unchanged(parts_.run, changes, parts_.changes);
    restore(*newest);
    checkpoint_ = newest->folder;
    prune_checkpoints(parts_.run, {config_.keep_checkpoints, config_.keep_every});  // fewer may be kept now: a disk was full
  }
  keep_resolved_config(parts_.run, parts_.resolved_config, /*continues=*/false);
  return changes;
}

std::vector<ChangedKey> Trainer::changes_since(const Checkpoint& checkpoint) const {
  std::vector<ChangedKey> changes = changed_results(parts_.run, parts_.resolved_config);
  if (checkpoint.data_fingerprint != parts_.data_fingerprint) {
    changes.push_back({"the content of data", checkpoint.data_fingerprint, parts_.data_fingerprint});
  }
  for (const auto& [folder, print] : parts_.model_fingerprints) {
    if (other_dtype(changes)) break;
    const auto before = checkpoint.model_fingerprints.find(folder);
    if (before == checkpoint.model_fingerprints.end() || before->second == print) continue;
    changes.push_back({"the content of " + folder, before->second, print});
  }
  return changes;
}

// Damaged ones that are newer are set aside.
std::optional<Checkpoint> Trainer::newest_checkpoint() const {
  std::vector<std::pair<fs::path, std::string>> damaged;
  std::optional<Checkpoint> newest;
  for (const fs::path& folder : list_checkpoints(parts_.run)) {
    try {
      newest = read_checkpoint(folder);
      break;
    } catch (const UserError& error) {
      damaged.emplace_back(folder, error.what());
    }
  }
  if (!newest && !damaged.empty()) {
    fail(damaged[0].second, "; no checkpoint in ", damaged[0].first.parent_path().string(),
         " can be read: remove that folder to start anew");
  }
  for (const auto& [folder, reason] : damaged) {
    log_warning(
        concat(reason, "; continuing from ", newest->folder.string(), ", the damaged one is now ", set_aside(folder).string()));
  }
  return newest;
}

void Trainer::restore(const Checkpoint& checkpoint) {
  const std::string folder = checkpoint.folder.string(), tensors = folder + "/optimizer.safetensors";
  std::vector<Parameter> state;
  for (const Parameter& tensor : checkpoint.tensors) {
    const std::string& name = tensor.name;
    if (!name.starts_with("random.") && !name.starts_with("guard.") && !name.ends_with(".average")) state.push_back(tensor);
  }
  IntervalSums interval = IntervalSums::from_json(*checkpoint.interval, folder + "/state.json: interval");
  horizon_.restore(*checkpoint.horizon, folder + "/state.json: horizon");
  parts_.source.restore(*checkpoint.data);
  optimizer_.restore(state, checkpoint.step, tensors);
  averages_.restore(checkpoint.tensors, tensors);
  spike_limit_.restore(checkpoint.tensors);
  restore_generators(parts_.model.device(), checkpoint.tensors);
  interval_ = std::move(interval);
  step_ = saved_step_ = checkpoint.step;
  tokens_ = checkpoint.tokens;
  seconds_ = checkpoint.seconds;
  last_loss_ = interval_loss_ = checkpoint.loss;
  if (checkpoint.threads != at::get_num_threads()) {
    log_warning(concat(folder, ": the run used ", counted(checkpoint.threads, "thread"), ", now it has ", at::get_num_threads(),
                       ": its numbers may differ in the last digits from those of an uninterrupted run"));
  }
}

// What `name` was in the state, as the weight of a model with this parameter.
using Replaced = std::map<std::string, at::Tensor>;

Replaced weights_in(const std::vector<Parameter>& state, const std::string& suffix) {
  Replaced weights;
  for (const auto& [name, value] : state) {
    if (name.ends_with(suffix)) weights[name.substr(0, name.size() - suffix.size())] = value;
  }
  return weights;
}

// A model of the same storage but for these weights, rounded to the dtype that they have in it.
std::shared_ptr<Model> with_weights(const Model& model, const Replaced& weights) {
  std::shared_ptr<Model> copy = model.share();
  copy->visit([&](const std::string& name, at::Tensor& value) {
    if (const auto found = weights.find(name); found != weights.end()) value = found->second.to(value.scalar_type());
  });
  return copy;
}

Checkpoint Trainer::checkpoint_now() const {
  Checkpoint checkpoint;
  checkpoint.step = step_;
  checkpoint.tokens = tokens_;
  checkpoint.seconds = seconds_;
  checkpoint.threads = at::get_num_threads();
  checkpoint.device = parts_.model.device().str();
  checkpoint.dtype = dtype_word(parts_.model.dtype());
  checkpoint.versions = versions();
  checkpoint.loss = interval_.steps > interval_.skipped ? interval_.mean_loss() : interval_loss_;
  checkpoint.data = std::make_shared<const Json>(parts_.source.position());
  checkpoint.data_fingerprint = parts_.data_fingerprint;
  checkpoint.model_fingerprints = parts_.model_fingerprints;
  checkpoint.interval = std::make_shared<const Json>(interval_.to_json());
  checkpoint.horizon = std::make_shared<const Json>(horizon_.state());
  for (const auto& state :
       {optimizer_.state(), averages_.state(), spike_limit_.state(), generator_states(parts_.model.device())}) {
    checkpoint.tensors.insert(checkpoint.tensors.end(), state.begin(), state.end());
  }
  return checkpoint;
}

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// From a copy on the host, which steps do not touch; or at once from the state itself.
void Trainer::save() {
  const c10::NoGradGuard no_grad;
  note_checkpoint(/*wait=*/true);
  const auto begin = std::chrono::steady_clock::now();
  Checkpoint checkpoint = checkpoint_now();
  if (config_.save_in_background) {
    for (Parameter& tensor : checkpoint.tensors) tensor.value = tensor.value.to(at::kCPU, false, /*copy=*/true);
  }
  std::shared_ptr<Model> model, average;
  if (parts_.export_model) {
    model = with_weights(parts_.model, weights_in(checkpoint.tensors, ".master"));
    if (averages_.kept()) average = with_weights(parts_.model, weights_in(checkpoint.tensors, ".average"));
  }
  writer_.start(std::move(checkpoint), [model, average, export_model = parts_.export_model](const fs::path& folder) {
    if (model) export_model(*model, folder / "export");
    if (average) export_model(*average, folder / "average");
  });
  stalled_ = seconds_since(begin);
  if (!config_.save_in_background) note_checkpoint(true);
}

void Trainer::note_checkpoint(bool wait) {
  const auto begin = std::chrono::steady_clock::now();
  const std::optional<WrittenCheckpoint> written = writer_.finished(wait);
  if (!written) return;
  stalled_ += seconds_since(begin);
  checkpoint_ = written->folder;
  saved_step_ = written->step;
  log_->event("checkpoint",
              {{"step", written->step}, {"loss", written->loss}, {"path", checkpoint_.string()}, {"stalled", stalled_}});
}

std::map<std::string, std::string> Trainer::versions() const {
  std::map<std::string, std::string> result = parts_.versions;
  result["torch"] = TORCH_VERSION;
  return result;
}

}  // namespace train_loop

}  // namespace molt
