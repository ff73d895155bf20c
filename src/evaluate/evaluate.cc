#include "evaluate/evaluate.h"

#include <ATen/Functions.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/random.h"
#include "evaluate/answer/answer.h"
#include "evaluate/perplexity.h"
#include "evaluate/sample_file.h"
#include "formats/folder_fingerprint.h"
#include "infer/text_generation.h"
#include "ops/linear_loss/linear_loss.h"
#include "text/chat_template.h"

namespace molt {

namespace evaluation {

// Items to what the model reads, the chat form by the model's template.
class Prompts {
 public:
  Prompts(const Tokenizer& tokenizer, const fs::path& folder) : tokenizer_(tokenizer), folder_(folder) {}

  // The text, and for the chat form its tokens: the template writes the special ones itself.
  TextRequest request(const TaskItem& item) {
    TextRequest request;
    request.prompt = item.prompt;
    if (item.messages.empty()) return request;
    if (!template_ && !folder_.empty()) template_ = ChatTemplate::read(folder_);
    require(template_.has_value(), "form: found chat, but ", folder_.empty() ? "the model's folder" : folder_.string(),
            " has no chat template; expected plain");
    OrderedJson messages = OrderedJson::array();
    for (const ChatMessage& message : item.messages) messages.push_back({{"role", message.role}, {"content", message.content}});
    request.prompt = template_->render({.messages = messages, .add_generation_prompt = true}).text;
    request.tokens = tokenizer_.encode(request.prompt, false);
    return request;
  }

 private:
  const Tokenizer& tokenizer_;
  fs::path folder_;
  std::optional<ChatTemplate> template_;
};

// Whether the prompt has begun what the model thinks.
bool opens_thinking(const std::string& prompt) {
  const auto end = prompt.find_last_not_of(" \t\r\n");
  return end != std::string::npos && prompt.substr(0, end + 1).ends_with("<think>");
}

struct Wanted {
  const TaskItem* item;
  std::int64_t sample;
};

void generate(const Model& model, std::shared_ptr<const Tokenizer> tokenizer, const Task& task, const std::vector<Wanted>& wanted,
              const EvaluateOptions& options, SampleFile& samples) {
  const TaskConfig& config = task.config();
  Prompts prompts(*tokenizer, options.template_folder);
  std::vector<TextRequest> requests;
  for (const auto& [item, sample] : wanted) {
    TextRequest request = prompts.request(*item);
    request.max_tokens = task.max_tokens();
    request.stop = task.stop();
    request.sampling = {.temperature = config.temperature,
                        .top_k = config.top_k,
                        .top_p = config.top_p,
                        .seed = derive_seed(static_cast<std::uint64_t>(config.seed), item->id)};
    check_sampling(request.sampling, "task " + config.name + ": ");
    requests.push_back(sample_of(request, sample));
  }
  generate_texts(model, tokenizer, requests, options.batch, [&](const TextEvent& event) {
    if (!event.finished) return;
    const auto [item, sample] = wanted[static_cast<std::size_t>(event.request)];
    const std::string& prompt = requests[static_cast<std::size_t>(event.request)].prompt;
    const std::string said = strip_thinking(event.result.text, opens_thinking(prompt));
    samples.add(*item, sample, {task.extract(said), task.correct(*item, said)},
                {{"prompt", prompt},
                 {"completion", event.result.text},
                 {"finish_reason", to_string(event.result.reason)},
                 {"tokens", event.result.tokens.size()}});
  });
}

void choose(const Model& model, const Tokenizer& tokenizer, const std::vector<Wanted>& wanted, SampleFile& samples) {
  for (const auto& [item, sample] : wanted) {
    throw_if_interrupted();
    std::vector<std::vector<std::int32_t>> continuations;
    for (const auto& choice : item->choices) continuations.push_back(tokenizer.encode(choice, /*add_special_tokens=*/false));
    const auto likelihoods = continuation_log_probabilities(model, tokenizer.encode(item->prompt), continuations);
    const auto best = std::max_element(likelihoods.begin(), likelihoods.end()) - likelihoods.begin();
    const std::string chosen = item->choices[static_cast<std::size_t>(best)].substr(1);
    samples.add(*item, sample, {chosen, best == item->correct_choice},
                {{"prompt", item->prompt}, {"completion", chosen}, {"tokens", 0}, {"log_probabilities", likelihoods}});
  }
}

}  // namespace evaluation

std::vector<double> continuation_log_probabilities(const Model& model, const std::vector<std::int32_t>& prompt,
                                                   const std::vector<std::vector<std::int32_t>>& continuations) {
  const c10::InferenceMode no_gradients;
  MOLT_CHECK(!prompt.empty(), "a continuation needs a prompt");
  const bool single =
      std::all_of(continuations.begin(), continuations.end(), [](const auto& tokens) { return tokens.size() == 1; });
  if (single) {  // one pass over the prompt serves them all
    const PackedBatch batch = PackedBatch::of({{prompt, {}}}).to(model.device());
    const at::Tensor last = model.forward(batch).slice(0, -1);
    const at::Tensor logits = at::log_softmax(model.logits(last).to(at::kFloat), -1).cpu();
    std::vector<double> found;
    for (const auto& tokens : continuations) found.push_back(logits[0][tokens[0]].item<double>());
    return found;
  }
  std::vector<PackedBatch::Sample> samples;
  for (const auto& tokens : continuations) {
    PackedBatch::Sample sample{prompt, std::vector<float>(prompt.size(), 0.0f)};
    sample.tokens.insert(sample.tokens.end(), tokens.begin(), tokens.end());
    sample.weights.resize(sample.tokens.size(), 1.0f);
    samples.push_back(std::move(sample));
  }
  const PackedBatch batch = PackedBatch::of(samples).to(model.device());
  const at::Tensor weighted = ops::log_probs(model.forward(batch), model.head_weight(), batch.targets) * batch.loss_weights;
  const at::Tensor sums = weighted.to(at::kDouble).cpu().cumsum(0);
  std::vector<double> found;
  double before = 0;
  for (std::int64_t i = 0; i < batch.sequences.count(); ++i) {
    const double until = sums[batch.sequences.offsets[static_cast<std::size_t>(i) + 1] - 1].item<double>();
    found.push_back(until - before);
    before = until;
  }
  return found;
}

void set_model(EvaluateOptions& options, const fs::path& folder) {
  options.identity = (fs::absolute(folder) / "").lexically_normal().parent_path().string();  // "a/b/" is "a/b"
  options.weights = folder_fingerprint(folder);
}

TaskScore evaluate(const Model& model, std::shared_ptr<const Tokenizer> tokenizer, const Task& task,
                   const EvaluateOptions& options) {
  SampleFile samples(task, options.output, options.identity, options.weights);
  std::vector<evaluation::Wanted> generated, chosen;
  for (const TaskItem& item : task.items()) {
    for (std::int64_t sample = 0; sample < samples.wanted(item); ++sample)
      if (!samples.has(item, sample)) (item.choices.empty() ? generated : chosen).push_back({&item, sample});
  }
  if (!generated.empty()) evaluation::generate(model, tokenizer, task, generated, options, samples);
  if (!chosen.empty()) evaluation::choose(model, *tokenizer, chosen, samples);
  const TaskScore score = samples.finish();
  if (!options.output.empty()) write_json(options.output / "score.json", score.to_json());
  return score;
}

PerplexityOptions perplexity_options(const TaskConfig& config, const EvaluateOptions& options) {
  return {.window = config.window,
          .stride = config.stride,
          .limit = config.limit,
          .output = options.output,
          .identity = options.identity,
          .weights = options.weights};
}

OrderedJson evaluate_task(const Model& model, std::shared_ptr<const Tokenizer> tokenizer, const TaskConfig& config,
                          const EvaluateOptions& options) {
  if (config.name != "perplexity") return evaluate(model, std::move(tokenizer), *make_task(config), options).to_json();
  return measure_perplexity(model, *tokenizer, config.data, perplexity_options(config, options)).to_json();
}

TaskEvaluator::TaskEvaluator(std::string name, std::shared_ptr<const Task> task, std::shared_ptr<const Tokenizer> tokenizer)
    : name_(std::move(name)), task_(std::move(task)), tokenizer_(std::move(tokenizer)) {}

std::map<std::string, double> TaskEvaluator::evaluate(const Model& model) {
  const TaskScore score = molt::evaluate(model, tokenizer_, *task_);
  return {{"accuracy", score.score.accuracy()}, {"standard_error", score.score.standard_error()}};
}

}  // namespace molt
