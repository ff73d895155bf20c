#include "distill/on_policy.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"
#include "base/random.h"
#include "infer/cache_pool.h"

namespace molt {

namespace on_policy {

using Tokens = std::vector<std::int32_t>;

std::vector<Tokens> prompts_of(const PackedBatch& batch) {
  const auto* tokens = batch.tokens.const_data_ptr<std::int64_t>();
  const auto* weights = batch.loss_weights.const_data_ptr<float>();
  std::vector<Tokens> prompts;
  for (std::int64_t i = 0; i < batch.sequences.count(); ++i) {
    const std::int64_t begin = batch.sequences.offsets[i], end = batch.sequences.offsets[i + 1];
    const auto learned = std::find_if(weights + begin, weights + end, [](float weight) { return weight != 0; });
    // The weight at a place is that of predicting the next token.
    if (learned != weights + end) prompts.emplace_back(tokens + begin, tokens + (learned - weights) + 1);
  }
  return prompts;
}

// Each prompt with its continuation, which may bring it to `most` tokens.
std::vector<Tokens> continuations(TextSampler& sampler, const std::vector<Tokens>& prompts, const OnPolicyOptions& options,
                                  std::int64_t first, std::int64_t most) {
  std::vector<Tokens> texts = prompts;
  std::vector<Request> requests;
  std::vector<std::size_t> asked;  // which prompt each request is of
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    const std::int64_t length = std::min(std::ssize(prompts[i]) + options.config.max_tokens, most) - std::ssize(prompts[i]);
    if (length < 1) continue;
    const std::uint64_t seed = derive_seed(options.seed, "on_policy", static_cast<std::uint64_t>(first) + i);
    requests.push_back({.prompt = prompts[i],
                        .max_tokens = length,
                        .sampling = {.temperature = options.config.temperature,
                                     .top_k = options.config.top_k,
                                     .top_p = options.config.top_p,
                                     .seed = seed},
                        .stop_tokens = options.stop_tokens});
    asked.push_back(i);
  }
  std::vector<Tokens> written = sampler.texts(requests, options.config.max_sequences);
  for (std::size_t i = 0; i < asked.size(); ++i) texts[asked[i]] = std::move(written[i]);
  return texts;
}

class Source : public BatchSource {
 public:
  Source(std::unique_ptr<BatchSource> data, std::shared_ptr<TextSampler> sampler, OnPolicyOptions options)
      : data_(std::move(data)), sampler_(std::move(sampler)), options_(std::move(options)) {}

  PackedBatch next(std::int64_t max_tokens) override {
    PackedBatch batch = data_->next(max_tokens);
    const auto due = [&](std::int64_t batches) { return std::floor(options_.config.fraction * static_cast<double>(batches)); };
    const bool own = due(batches_ + 1) > due(batches_);
    ++batches_;
    if (!own || batch.loss_weight == 0) return batch;
    const std::int64_t first = samples_;
    samples_ += batch.sequences.count();
    return continued_by(*sampler_, batch, options_, first, max_tokens);
  }

  Json position() const override {
    Json position = data_->position();
    position["on_policy"] = {{"batches", batches_}, {"samples", samples_}};
    return position;
  }

  void restore(const Json& position) override {
    data_->restore(position);
    const std::string place = "data position: on_policy";
    const auto counts = position.value("on_policy", Json::object());
    batches_ = get_or<std::int64_t>(counts, "batches", 0, place);
    samples_ = get_or<std::int64_t>(counts, "samples", 0, place);
    require(batches_ >= 0 && samples_ >= 0, place, ": found a negative count, expected numbers from 0 up");
  }

 private:
  std::unique_ptr<BatchSource> data_;
  std::shared_ptr<TextSampler> sampler_;
  OnPolicyOptions options_;
  std::int64_t batches_ = 0, samples_ = 0;
};

}  // namespace on_policy

void check_on_policy(const HeadConfig& head, const std::string& place) {
  require(head.distills(), place, ": found no head.distillation_model, expected a teacher that judges what the student writes");
  require(head.mix().cross_entropy == 0, place, ": found a language_model_loss_factor of ", head.mix().cross_entropy,
          ", expected 0: learning to predict its own text, the student would only grow surer of it");
}

PackedBatch continued_by(TextSampler& sampler, const PackedBatch& batch, const OnPolicyOptions& options, std::int64_t first,
                         std::int64_t max_tokens) {
  const std::vector<on_policy::Tokens> prompts = on_policy::prompts_of(batch);
  MOLT_CHECK(!prompts.empty(), "a batch of ", batch.sequences.count(), " samples without a learned token has no prompt");
  std::vector<PackedBatch::Sample> samples;
  std::int64_t left = max_tokens;
  for (on_policy::Tokens& text : on_policy::continuations(sampler, prompts, options, first, max_tokens)) {
    const std::size_t prompt = prompts[samples.size()].size(), length = std::min(text.size(), static_cast<std::size_t>(left));
    if (length <= prompt && !samples.empty()) break;
    text.resize(length);
    PackedBatch::Sample sample{std::move(text), std::vector<float>(length, 0.0f)};
    for (std::size_t i = prompt; i < length; ++i) sample.weights[i] = 1;
    samples.push_back(std::move(sample));
    left -= static_cast<std::int64_t>(length);
  }
  return PackedBatch::of(samples);
}

SamplingCost sampling_cost(const OnPolicyConfig& config, std::int64_t batch_tokens, std::int64_t context) {
  SamplingCost cost;
  cost.texts = std::max<std::int64_t>(1, batch_tokens / (2 * context));
  cost.longest = std::min(context + config.max_tokens, std::max(batch_tokens, context + 1));
  cost.tokens = static_cast<double>(cost.texts * cost.longest);
  return cost;
}

double SamplingCost::flops(const Model& model) const {
  return tokens * model.flops(std::max<std::int64_t>(1, longest / 2));
}

double SamplingCost::bytes(const Model& model, std::int64_t max_sequences) const {
  const EngineOptions room = TextSampler::room_for(texts, longest, max_sequences);
  return static_cast<double>(room.max_sequences * cache_bytes(model, CachePool::block_for(room.max_tokens)));
}

std::unique_ptr<BatchSource> on_policy_source(std::unique_ptr<BatchSource> data, std::shared_ptr<TextSampler> sampler,
                                              OnPolicyOptions options) {
  return std::make_unique<on_policy::Source>(std::move(data), std::move(sampler), std::move(options));
}

OnPolicyLoss::OnPolicyLoss(std::string name, Objective& objective, std::vector<PackedBatch> batches,
                           std::shared_ptr<TextSampler> sampler, OnPolicyOptions options, std::int64_t max_tokens)
    : name_(std::move(name)),
      objective_(objective),
      sampler_(std::move(sampler)),
      batches_(std::move(batches)),
      options_(std::move(options)),
      max_tokens_(max_tokens) {
  std::erase_if(batches_, [](const PackedBatch& batch) { return batch.loss_weight == 0; });  // a sample cut within its prompt
}

std::map<std::string, double> OnPolicyLoss::evaluate(const Model& model) {
  MOLT_CHECK(&model == &sampler_->model(), "another model than the one that the texts are of");
  std::vector<PackedBatch> own;
  std::int64_t first = 0;
  for (const PackedBatch& batch : batches_) {
    own.push_back(continued_by(*sampler_, batch, options_, first, max_tokens_));
    first += batch.sequences.count();
  }
  return HeldOutLoss(name_, objective_, std::move(own)).evaluate(model);
}

}  // namespace molt
