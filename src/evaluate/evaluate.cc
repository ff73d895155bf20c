#include "evaluate/evaluate.h"

#include <ATen/Functions.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/progress.h"
#include "infer/text_generation.h"
#include "ops/linear_loss/linear_loss.h"

namespace molt {

double Score::standard_error() const {
  if (items == 0) return 0;
  const double p = accuracy();
  return std::sqrt(p * (1 - p) / static_cast<double>(items));
}

OrderedJson TaskScore::to_json() const {
  const auto describe = [](const Score& score) {
    return OrderedJson{{"accuracy", score.accuracy()},
                       {"standard_error", score.standard_error()},
                       {"items", score.items},
                       {"correct", score.correct}};
  };
  OrderedJson json = describe(score);
  json["task"] = task;
  for (const auto& [name, members] : groups)
    for (const auto& [value, member] : members) json["by_" + name][std::to_string(value)] = describe(member);
  if (generated_tokens) json["generated_tokens"] = generated_tokens;
  return json;
}

namespace evaluation {

// The samples of one evaluation: what is known already, and where new ones go.
class Samples {
 public:
  Samples(const Task& task, const EvaluateOptions& options) {
    score_.task = task.name();
    for (const TaskItem& item : task.items()) items_[item.id] = &item;
    if (options.output.empty()) return;
    fs::create_directories(options.output);
    check_identity(options.output / "evaluation.json",
                   {{"task", task.name()}, {"model", options.identity}, {"items", task.items().size()}});
    const fs::path path = options.output / "samples.jsonl";
    writer_ = std::make_unique<LineWriter>(path);
    LineReader reader(path);
    for (std::string_view line; reader.next(line);) {
      const Json sample = parse_json(line, reader.place());
      const auto found = items_.find(get<std::string>(sample, "id", reader.place()));
      if (found == items_.end() || !done_.insert(found->first).second) continue;
      count(*found->second, get<bool>(sample, "correct", reader.place()));
      score_.generated_tokens += get_or<std::int64_t>(sample, "tokens", 0, reader.place());
    }
  }

  bool has(const TaskItem& item) const { return done_.count(item.id) > 0; }
  const TaskScore& score() const { return score_; }

  void add(const TaskItem& item, const std::string& completion, const std::string& extracted, bool correct, std::int64_t tokens,
           const OrderedJson& more) {
    count(item, correct);
    score_.generated_tokens += tokens;
    if (!writer_) return;
    OrderedJson line{{"id", item.id},          {"prompt", item.prompt}, {"expected", item.expected}, {"completion", completion},
                     {"extracted", extracted}, {"correct", correct},    {"tokens", tokens}};
    for (const auto& [name, value] : item.groups) line[name] = value;
    if (more.is_object()) line.update(more);
    writer_->append(to_line(line));
  }

 private:
  static void check_identity(const fs::path& path, const Json& identity) {
    if (!fs::exists(path)) return write_json(path, identity);
    require(read_json(path) == identity, path.string(),
            ": the folder holds results of another model or task; choose another --output");
  }

  void count(const TaskItem& item, bool correct) {
    const auto add = [&](Score& score) {
      ++score.items;
      score.correct += correct;
    };
    add(score_.score);
    for (const auto& [name, value] : item.groups) add(score_.groups[name][value]);
  }

  std::map<std::string, const TaskItem*> items_;
  std::set<std::string> done_;
  std::unique_ptr<LineWriter> writer_;
  TaskScore score_;
};

void generate(const Model& model, std::shared_ptr<const Tokenizer> tokenizer, const Task& task,
              const std::vector<const TaskItem*>& items, std::int64_t batch, Samples& samples, Progress& progress) {
  std::vector<TextRequest> requests;
  for (const TaskItem* item : items) {
    TextRequest request;
    request.prompt = item->prompt;
    request.max_tokens = task.max_tokens();
    request.stop = task.stop();
    requests.push_back(std::move(request));
  }
  generate_texts(model, tokenizer, requests, batch, [&](const TextEvent& event) {
    if (!event.finished) return;
    const TaskItem& item = *items[static_cast<std::size_t>(event.request)];
    const std::string& text = event.result.text;
    samples.add(item, text, task.extract(text), task.correct(item, text), static_cast<std::int64_t>(event.result.tokens.size()),
                {});
    progress.update(samples.score().score.items, concat("accuracy ", std::round(samples.score().score.accuracy() * 1000) / 1000));
  });
}

void choose(const Model& model, const Tokenizer& tokenizer, const std::vector<const TaskItem*>& items, Samples& samples,
            Progress& progress) {
  for (const TaskItem* item : items) {
    throw_if_interrupted();
    std::vector<std::vector<std::int32_t>> continuations;
    for (const auto& choice : item->choices) continuations.push_back(tokenizer.encode(choice, /*add_special_tokens=*/false));
    const auto likelihoods = continuation_log_probabilities(model, tokenizer.encode(item->prompt), continuations);
    const auto best = std::max_element(likelihoods.begin(), likelihoods.end()) - likelihoods.begin();
    const std::string chosen = item->choices[static_cast<std::size_t>(best)].substr(1);
    samples.add(*item, chosen, chosen, best == item->correct_choice, 0, {{"log_probabilities", likelihoods}});
    progress.update(samples.score().score.items, concat("accuracy ", std::round(samples.score().score.accuracy() * 1000) / 1000));
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

TaskScore evaluate(const Model& model, std::shared_ptr<const Tokenizer> tokenizer, const Task& task,
                   const EvaluateOptions& options) {
  evaluation::Samples samples(task, options);
  std::vector<const TaskItem*> generated, chosen;
  for (const TaskItem& item : task.items())
    if (!samples.has(item)) (item.choices.empty() ? generated : chosen).push_back(&item);
  Progress progress("evaluate " + task.name(), static_cast<std::int64_t>(task.items().size()), "items");
  progress.update(samples.score().score.items);
  if (!generated.empty()) evaluation::generate(model, tokenizer, task, generated, options.batch, samples, progress);
  if (!chosen.empty()) evaluation::choose(model, *tokenizer, chosen, samples, progress);
  progress.finish();
  if (!options.output.empty()) write_json(options.output / "score.json", samples.score().to_json());
  return samples.score();
}

TaskEvaluator::TaskEvaluator(std::string name, std::shared_ptr<const Task> task, std::shared_ptr<const Tokenizer> tokenizer)
    : name_(std::move(name)), task_(std::move(task)), tokenizer_(std::move(tokenizer)) {}

std::map<std::string, double> TaskEvaluator::evaluate(const Model& model) {
  const TaskScore score = molt::evaluate(model, tokenizer_, *task_);
  return {{"accuracy", score.score.accuracy()}, {"standard_error", score.score.standard_error()}};
}

}  // namespace molt
