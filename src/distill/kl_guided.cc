#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/random.h"
#include "distill/candidate_training.h"
#include "distill/objective.h"
#include "distill/ranking_file.h"
#include "distill/run_training.h"
#include "train/checkpoint.h"

namespace molt {

namespace kl_guided {

using Layers = std::vector<std::int64_t>;

Layers without(const Layers& all, const Layers& some) {
  Layers left;
  std::copy_if(all.begin(), all.end(), std::back_inserter(left),
               [&](std::int64_t layer) { return std::find(some.begin(), some.end(), layer) == some.end(); });
  return left;
}

Layers with(Layers layers, std::int64_t one_more) {
  layers.push_back(one_more);
  return layers;
}

class KlGuided {
 public:
  KlGuided(const RankConfig& config, const RankInputs& inputs, const Layers& layers, RankingFile& file)
      : config_(config),
        inputs_(inputs),
        layers_(layers),
        file_(file),
        run_(file.path().parent_path() / (file.path().stem().string() + "_student")),
        training_(config, inputs) {
    make_student();
  }

  void rank() {
    const auto count = static_cast<std::int64_t>(layers_.size());
    const auto rounds_from = [](std::int64_t left) { return left * (left + 1) / 2; };
    Progress progress("restoring layers", config_.greedy ? rounds_from(count) : count, "layers");
    std::int64_t done = config_.greedy ? rounds_from(count) - rounds_from(count - std::ssize(file_.picked())) : 0;
    const auto next = [&] { progress.update(++done); };
    if (config_.greedy) return rank_greedily(next);
    const SequenceSums base = baseline();
    for (const std::int64_t layer : layers_) {
      if (!file_.has(layer)) file_.add(candidate({}, layer, base).figures);
      next();
    }
  }

 private:
  struct Measured {
    SequenceSums left;    // divergence that is left
    OrderedJson figures;  // "kl", and of a candidate that was trained "initial", "trained_parameters", "curve"
  };

  // Every candidate layer converted, and the new mixers trained: runs like any other, which go on where they were stopped.
  void make_student() {
    const std::string place = inputs_.place + ": layers";
    RunModels models{inputs_.model.share(), inputs_.teacher, inputs_.tokenizer, inputs_.like};
    convert_layers(*models.student, *inputs_.teacher, layers_, config_.mixer,
                   derive_seed(static_cast<std::uint64_t>(config_.seed), "kl"), place);
    std::shared_ptr<const Json> position = training_.position();
    const auto run = [&](const TrainConfig& config, Objective* objective) {
      const LoopResult result = run_training(
          config, models,
          {.place = inputs_.place, .versions = {}, .objective = objective, .position = position, .resolved = file_.identity()});
      position = read_checkpoint(result.checkpoint).data;
    };
    if (config_.match_steps > 0) {
      MixerMatching matching(inputs_.teacher, layers_);
      TrainConfig matched = student_run(run_.string() + "_match", config_.match_steps);
      matched.training.trainable =
          MixerMatching::trainable(*models.student, layers_, matched.training.trainable, inputs_.place + ": trainable");
      log_info(concat("matching all ", layers_.size(), " candidates' mixers in ", matched.output));
      run(matched, &matching);
    }
    if (config_.student_steps > 0) {
      log_info(concat("training all ", layers_.size(), " candidates at once in ", run_.string()));
      run(student_run(run_.string(), config_.student_steps), nullptr);
    }
    student_ = models.student->share();  // without gradients
    training_.take_batches(position);
  }

  TrainConfig student_run(const std::string& output, std::int64_t steps) const {
    TrainConfig run;
    HeadConfig& head = run.model.base_model.head;
    static_cast<DivergenceConfig&>(head) = config_.divergence;
    head.distillation_model = "teacher";
    run.data = config_.data;
    run.seed = config_.seed;
    run.output = output;
    run.training.steps = steps;
    run.training.micro_batch_tokens = config_.micro_batch_tokens;
    run.training.micro_batches = config_.micro_batches;
    run.training.optimizer = config_.optimizer;
    run.training.schedule = config_.schedule;
    run.training.trainable = patterns_of_layers(config_.trainable, layers_);
    run.training.log_every = std::max<std::int64_t>(1, steps / 100);
    run.training.checkpoint_every = std::max<std::int64_t>(1, steps / 5);
    run.training.keep_checkpoints = 1;
    return run;
  }

  // The student with some layers restored and, by choice, its other new mixers trained further.
  Measured measure(const Layers& restored) {
    const std::unique_ptr<Model> student = student_->share();
    restore_layers(*student, *inputs_.teacher, restored, inputs_.place + ": layers");
    SequenceSums left = training_.divergence(*student);
    OrderedJson figures = {{"kl", left.mean()}};
    const Layers others = without(layers_, restored);
    if (config_.steps > 0 && !others.empty()) {
      const std::string who = restored.empty() ? "no layer restored" : concat("layer ", restored.back());
      const CandidateTraining::Trained trained = training_.train(*student, others, who, [](std::int64_t) {});
      figures["initial"] = left.mean();
      left = training_.divergence(*student);
      figures["kl"] = left.mean();
      figures["trained_parameters"] = trained.parameters;
      figures["curve"] = loss_curve(trained.losses);
    }
    return {std::move(left), std::move(figures)};
  }

  // Nothing restored. The same further steps are part of it, so that what a candidate saves is due to its layer.
  SequenceSums baseline() {
    const Measured all = measure({});
    if (!file_.has_baseline()) {
      OrderedJson figures = {{"score", 0.0}, {"standard_error", all.left.standard_error()}, {"sequences", all.left.sums.size()}};
      figures.update(all.figures);
      if (config_.student_steps > 0) figures["student"] = run_.filename().string();
      file_.set_baseline(figures);
    }
    return all.left;
  }

  struct Candidate {
    SequenceSums left;
    OrderedJson figures;
  };
  Candidate candidate(const Layers& restored, std::int64_t layer, const SequenceSums& base) {
    Measured measured = measure(with(restored, layer));
    const SequenceSums saved = base.minus(measured.left);
    OrderedJson figures = {{"layer", layer},
                           {"mixer", inputs_.model.config().blocks[static_cast<std::size_t>(layer)].mixer().type()},
                           {"score", saved.mean()},
                           {"standard_error", saved.standard_error()}};
    figures.update(measured.figures);
    return {std::move(measured.left), std::move(figures)};
  }

  // Round by round: the layer that saves most beside those restored so far is picked. What is left by the pick is the base of the
  // next round; a ranking that is continued computes it once more.
  void rank_greedily(const std::function<void()>& next) {
    Layers picked = file_.picked();
    SequenceSums base = picked.empty() ? baseline() : measure(picked).left;
    while (picked.size() < layers_.size()) {
      std::map<std::int64_t, SequenceSums> left;
      for (const std::int64_t layer : without(layers_, picked)) {
        if (!file_.tried(layer)) {
          Candidate tried = candidate(picked, layer, base);
          left[layer] = std::move(tried.left);
          file_.add_to_round(tried.figures);
        }
        next();
      }
      const std::int64_t pick = file_.pick();
      picked.push_back(pick);
      base = left.contains(pick) ? left[pick] : measure(picked).left;
    }
  }

  const RankConfig& config_;
  const RankInputs& inputs_;
  const Layers& layers_;
  RankingFile& file_;
  fs::path run_;
  CandidateTraining training_;
  std::unique_ptr<Model> student_;
};

}  // namespace kl_guided

void rank_by_restoring(const RankConfig& config, const RankInputs& inputs, const std::vector<std::int64_t>& layers,
                       RankingFile& file) {
  kl_guided::KlGuided(config, inputs, layers, file).rank();
}

}  // namespace molt
