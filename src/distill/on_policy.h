// On-policy distillation: the student continues prompts, and the loss compares it with its teacher on what it wrote itself, token
// by token over the whole vocabulary. Which texts those are is taken as given: no gradient goes through the sampling. (Agarwal et
// al., GKD, arXiv 2306.13649, algorithm 1; Gu et al., MiniLLM, arXiv 2306.08543, have the policy gradient that is left out here.)
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/batch_source.h"
#include "data/packed_source.h"
#include "distill/text_sampler.h"
#include "model/model.h"
#include "train/config.h"
#include "train/objective.h"

namespace molt {

struct OnPolicyOptions {
  OnPolicyConfig config;
  std::vector<std::int32_t> stop_tokens;  // of the tokenizer: a text ends after one of them
  std::uint64_t seed = 0;
};

// UserError of `place` unless the head has a teacher and no cross-entropy.
void check_on_policy(const HeadConfig& head, const std::string& place);

// The prompts of a batch (of each sequence what precedes its first learned token; none of a sequence that teaches nothing) with
// what the sampler's model makes of them: the i-th is drawn with a seed that is a function of (options.seed, first + i) alone.
// What the model wrote is learned with weight 1, the token that ended it included. At most `max_tokens` tokens in all, and at
// most options.config.max_tokens new ones a sequence; what does not fit any more is cut or left out. On the CPU; the engine runs
// where the model lies. The batch must teach something.
PackedBatch continued_by(TextSampler& sampler, const PackedBatch& batch, const OnPolicyOptions& options, std::int64_t first,
                         std::int64_t max_tokens);

// What the texts of one batch cost to write, reckoned before any is: as many samples of twice `context` tokens as fill the batch,
// half of each its prompt, all written to max_tokens. Texts that end earlier cost less.
struct SamplingCost {
  std::int64_t texts = 0;
  double tokens = 0;                                                   // through the model, prompts among them
  std::int64_t longest = 0;                                            // tokens of a text
  double bytes(const Model& model, std::int64_t max_sequences) const;  // of the engine's caches
  double flops(const Model& model) const;
};
SamplingCost sampling_cost(const OnPolicyConfig& config, std::int64_t batch_tokens, std::int64_t context);

// Every batch of `data`, of which the share options.config.fraction, evenly spread, is continued by the student as it is when the
// batch is asked for: the sampler's model. position() is that of `data` with "on_policy": {"batches", "samples"}
// (so many batches were given out, so many sequences begun); a position without these begins them at 0.
std::unique_ptr<BatchSource> on_policy_source(std::unique_ptr<BatchSource> data, std::shared_ptr<TextSampler> sampler,
                                              OnPolicyOptions options);

// The objective's mean loss and sums on what the model makes of fixed prompts at each evaluation, drawn with the same seeds:
// under reverse_kl, how far it is from its teacher where it goes itself. The model that is evaluated is the sampler's.
class OnPolicyLoss : public Evaluator {
 public:
  OnPolicyLoss(std::string name, Objective& objective, std::vector<PackedBatch> batches, std::shared_ptr<TextSampler> sampler,
               OnPolicyOptions options, std::int64_t max_tokens);
  std::string name() const override { return name_; }
  std::map<std::string, double> evaluate(const Model& model) override;

 private:
  std::string name_;
  Objective& objective_;
  std::shared_ptr<TextSampler> sampler_;
  std::vector<PackedBatch> batches_;
  OnPolicyOptions options_;
  std::int64_t max_tokens_;  // of a batch
};

}  // namespace molt
