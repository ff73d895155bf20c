#include <ATen/Functions.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/progress.h"
#include "distill/paired.h"
#include "distill/ranking_file.h"
#include "distill/run_training.h"
#include "evaluate/evaluate.h"
#include "ops/linear_loss/linear_loss.h"
#include "ops/rms_norm/rms_norm.h"

namespace molt {

namespace leave_one_out {

// Leaves a layer out for as long as it lives.
class LeftOut {
 public:
  LeftOut(Block& block, const std::string& scope) : block_(block), before_(block.bypass) {
    block_.bypass = scope == "layer" ? Bypass::block : Bypass::mixer;
  }
  ~LeftOut() { block_.bypass = before_; }
  LeftOut(const LeftOut&) = delete;
  LeftOut& operator=(const LeftOut&) = delete;

 private:
  Block& block_;
  Bypass before_;
};

// Held-out batches with the hidden states that enter one layer, which moves forward: nothing before the layer is computed twice.
class Frontier {
 public:
  Frontier(const Model& model, const std::vector<PackedBatch>& batches) : model_(model) {
    std::int64_t width = 0;
    for (const Block& block : model.blocks) width = std::max(width, block.mixer().rotary_width());
    for (const PackedBatch& given : batches) {
      PackedBatch batch = given.to(model.device());
      if (width > 0) {
        const RotaryConfig& rotary = model.config().rotary;
        batch.rotary = rotary.table(rotary.frequencies(width, model.device()), batch.positions, batch.sequences);
      }
      hidden_.push_back(at::embedding(model.embedding, batch.tokens));
      batches_.push_back(std::move(batch));
    }
  }

  void advance_to(std::int64_t layer) {
    for (; layer_ < layer; ++layer_) {
      for (std::size_t i = 0; i < batches_.size(); ++i) {
        throw_if_interrupted();
        hidden_[i] = forward(layer_, hidden_[i], batches_[i]);
      }
    }
  }

  // The loss of each sequence with the layers from here on as they are now.
  SequenceSums loss() const {
    SequenceSums loss;
    for (std::size_t i = 0; i < batches_.size(); ++i) {
      throw_if_interrupted();
      const PackedBatch& batch = batches_[i];
      at::Tensor hidden = hidden_[i];
      for (std::int64_t layer = layer_; layer < model_.config().num_layers(); ++layer) hidden = forward(layer, hidden, batch);
      hidden = ops::rms_norm(hidden, model_.final_norm, model_.config().norm_epsilon);
      loss.add(ops::linear_cross_entropy(hidden, model_.head_weight(), batch.targets, batch.loss_weights, {batch.loss_tokens})
                   .cross_entropy,
               batch);
    }
    return loss;
  }

 private:
  at::Tensor forward(std::int64_t layer, const at::Tensor& hidden, const PackedBatch& batch) const {
    return model_.blocks[static_cast<std::size_t>(layer)].forward(hidden, batch, Recompute::none, "", nullptr);
  }

  const Model& model_;
  std::vector<PackedBatch> batches_;
  std::vector<at::Tensor> hidden_;
  std::int64_t layer_ = 0;
};

void rank_by_loss(const RankConfig& config, const RankInputs& inputs, const std::vector<std::int64_t>& layers,
                  RankingFile& file) {
  const c10::NoGradGuard no_grad;
  Model& model = inputs.model;
  const auto source = open_source(config.data, inputs.tokenizer, model.config().vocabulary,
                                  static_cast<std::uint64_t>(config.seed), inputs.place + ": data");
  Frontier frontier(model, held_out_batches(*source, config.held_out_tokens, config.micro_batch_tokens));
  const SequenceSums whole = frontier.loss();
  require(std::isfinite(whole.mean()), inputs.place, ": the model's own loss on the held-out data is ", whole.mean(),
          ", expected a finite number");
  file.set_baseline(
      {{"score", 0.0}, {"loss", whole.mean()}, {"standard_error", whole.standard_error()}, {"sequences", whole.sums.size()}});
  Progress progress("leaving layers out", static_cast<std::int64_t>(layers.size()), "layers");
  std::int64_t done = 0;
  for (const std::int64_t layer : layers) {
    if (!file.has(layer)) {
      frontier.advance_to(layer);
      const LeftOut left_out(model.blocks[static_cast<std::size_t>(layer)], config.scope);
      const SequenceSums loss = frontier.loss(), rise = loss.minus(whole);
      file.add({{"layer", layer},
                {"mixer", model.config().blocks[static_cast<std::size_t>(layer)].mixer().type()},
                {"score", rise.mean()},
                {"standard_error", rise.standard_error()},
                {"loss", loss.mean()}});
    }
    progress.update(++done);
  }
}

// Which items were answered correctly, from the samples that evaluate() left.
std::map<std::string, bool> answers(const fs::path& folder) {
  std::map<std::string, bool> correct;
  LineReader reader(folder / "samples.jsonl");
  for (std::string_view line; reader.next(line);) {
    const Json sample = parse_json(line, reader.place());
    correct[get<std::string>(sample, "id", reader.place())] = get<bool>(sample, "correct", reader.place());
  }
  return correct;
}

void rank_by_task(const RankConfig& config, const RankInputs& inputs, const std::vector<std::int64_t>& layers,
                  RankingFile& file) {
  require(inputs.tokenizer != nullptr, inputs.place, ": a ranking by a task needs the model's tokenizer.json");
  const std::unique_ptr<Task> task = make_task(config.task);
  const fs::path samples = file.path().parent_path() / (file.path().stem().string() + "_samples");
  const std::string fingerprint = model_fingerprint(inputs.model);
  const auto score = [&](const std::string& name) {
    const fs::path folder = samples / name;
    const TaskScore result =
        evaluate(inputs.model, inputs.tokenizer, *task, {.output = folder, .identity = concat(fingerprint, " ", name)});
    return std::pair(result.score.accuracy(), answers(folder));
  };
  const auto [whole, right] = score("whole");
  file.set_baseline({{"score", 0.0}, {"accuracy", whole}, {"items", right.size()}});
  Progress progress("leaving layers out", static_cast<std::int64_t>(layers.size()), "layers");
  std::int64_t done = 0;
  for (const std::int64_t layer : layers) {
    if (!file.has(layer)) {
      const LeftOut left_out(inputs.model.blocks[static_cast<std::size_t>(layer)], config.scope);
      const auto [accuracy, answered] = score(concat("without-", config.scope, "-", layer));
      SequenceSums lost;  // an item each
      for (const auto& [id, correct] : right) {
        lost.sums.push_back(static_cast<double>(correct) - static_cast<double>(answered.at(id)));
        lost.weights.push_back(1);
      }
      file.add({{"layer", layer},
                {"mixer", inputs.model.config().blocks[static_cast<std::size_t>(layer)].mixer().type()},
                {"score", lost.mean()},
                {"standard_error", lost.standard_error()},
                {"accuracy", accuracy}});
    }
    progress.update(++done);
  }
}

}  // namespace leave_one_out

void rank_by_leaving_out(const RankConfig& config, const RankInputs& inputs, const std::vector<std::int64_t>& layers,
                         RankingFile& file) {
  std::vector<std::int64_t> ascending = layers;
  std::sort(ascending.begin(), ascending.end());
  (config.metric == "task" ? leave_one_out::rank_by_task : leave_one_out::rank_by_loss)(config, inputs, ascending, file);
}

}  // namespace molt
