// What mmr and kl share: how far a student is from its teacher on held-out batches, and a short training towards the teacher on
// batches that are the same for every candidate.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "data/batch_source.h"
#include "distill/paired.h"
#include "distill/rank.h"
#include "ops/linear_loss/linear_loss.h"

namespace molt {

// Batches with the teacher's final hidden states, which are the same for every candidate: kept while they fit into a GiB.
class Lessons {
 public:
  explicit Lessons(const RankConfig& config, std::shared_ptr<const Model> teacher);

  void add(PackedBatch batch);
  std::size_t size() const { return batches_.size(); }

  struct Loss {
    ops::LossResult result;
    PackedBatch batch;
  };
  // Of the student on one batch, by the configuration's divergence; nothing waits for a GPU.
  Loss loss(const Model& student, std::size_t index);

 private:
  at::Tensor states(std::size_t index, const PackedBatch& batch);

  std::shared_ptr<const Model> teacher_;
  ops::LossMix mix_;
  std::vector<PackedBatch> batches_;
  std::vector<at::Tensor> states_;
  std::size_t kept_ = 0;  // bytes
};

class CandidateTraining {
 public:
  // Takes the held-out batches, the data's first. UserError for a teacher of another vocabulary.
  CandidateTraining(const RankConfig& config, const RankInputs& inputs);

  // Where the data goes on behind the held-out batches.
  std::shared_ptr<const Json> position() const;
  // Takes the batches of config.steps steps from a position (null: behind the held-out ones). Before train().
  void take_batches(const std::shared_ptr<const Json>& from = nullptr);

  // In nats, of each held-out sequence.
  SequenceSums divergence(const Model& student);

  struct Trained {
    std::int64_t parameters = 0;
    std::vector<double> losses;  // the mean of each step
  };
  // config.steps steps of what config.trainable picks, {layer} standing for each of `layers`. `who` ("layer 7") is named in
  // errors, on_step is told how many are done. Throws Interrupted at once: a candidate is trained from its start again.
  Trained train(Model& student, const std::vector<std::int64_t>& layers, const std::string& who,
                const std::function<void(std::int64_t step)>& on_step);

 private:
  const RankConfig& config_;
  const RankInputs& inputs_;
  std::unique_ptr<BatchSource> source_;
  Lessons training_, held_out_;
};

// Glob patterns with {layer} written out for each of `layers`.
std::vector<std::string> patterns_of_layers(const std::vector<std::string>& patterns, const std::vector<std::int64_t>& layers);

// [[step, mean loss since the entry before], …], at most 100 entries.
OrderedJson loss_curve(const std::vector<double>& losses);

}  // namespace molt
