#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/progress.h"
#include "base/random.h"
#include "distill/candidate_training.h"
#include "distill/ranking_file.h"

namespace molt {

namespace replacement {

OrderedJson candidate(const RankConfig& config, const RankInputs& inputs, CandidateTraining& training, std::int64_t layer,
                      const std::function<void(std::int64_t step)>& on_step) {
  const std::unique_ptr<Model> student = inputs.model.share();
  convert_layers(*student, *inputs.teacher, {layer}, config.mixer, derive_seed(static_cast<std::uint64_t>(config.seed), "mmr"),
                 inputs.place + ": layers");
  const SequenceSums before = training.divergence(*student);
  const CandidateTraining::Trained trained = training.train(*student, {layer}, concat("layer ", layer), on_step);
  const SequenceSums after = training.divergence(*student);
  return {{"layer", layer},
          {"mixer", inputs.model.config().blocks[static_cast<std::size_t>(layer)].mixer().type()},
          {"score", after.mean()},
          {"standard_error", after.standard_error()},
          {"initial", before.mean()},
          {"trained_parameters", trained.parameters},
          {"curve", loss_curve(trained.losses)}};
}

}  // namespace replacement

void rank_by_replacing(const RankConfig& config, const RankInputs& inputs, const std::vector<std::int64_t>& layers,
                       RankingFile& file) {
  CandidateTraining training(config, inputs);
  training.take_batches();
  if (!file.has_baseline()) {
    const SequenceSums now = training.divergence(inputs.model);
    file.set_baseline({{"score", now.mean()}, {"standard_error", now.standard_error()}, {"sequences", now.sums.size()}});
  }
  Progress progress("replacing layers", static_cast<std::int64_t>(layers.size()) * config.steps, "steps");
  std::int64_t done = 0;
  for (const std::int64_t layer : layers) {
    progress.update(done, concat("layer ", layer));
    if (!file.has(layer)) {
      file.add(replacement::candidate(config, inputs, training, layer,
                                      [&](std::int64_t step) { progress.update(done + step, concat("layer ", layer)); }));
    }
    done += config.steps;
  }
  progress.update(done);
}

}  // namespace molt
