// Scores of a model on a task, with every sample kept.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "base/files.h"
#include "base/json.h"
#include "evaluate/perplexity.h"
#include "evaluate/score.h"
#include "evaluate/task.h"
#include "model/model.h"
#include "text/tokenizer.h"
#include "train/objective.h"

namespace molt {

struct EvaluateOptions {
  std::int64_t batch = 32;        // sequences generated together
  fs::path output = {};           // folder for samples.jsonl and score.json; empty: nothing is kept
  std::string identity = {};      // what is evaluated; results of something else in the folder are a UserError
  std::string weights = {};       // as much; empty: `identity` says it all
  fs::path template_folder = {};  // has the chat template that the chat form needs
};

// Says in the options that the model in a folder is evaluated: where it lies, and its fingerprint (folder_fingerprint.h).
void set_model(EvaluateOptions& options, const fs::path& folder);

// Generation and the task's check, the task's `samples` of each item; or the likeliest choice. Samples are written as they end,
// each {"id", "prompt", "expected", "completion", "extracted", "correct", …}; an interrupted evaluation continues after them, and
// one of more samples adds what is missing. What was thought before "</think>" is kept, and not searched for an answer.
TaskScore evaluate(const Model& model, std::shared_ptr<const Tokenizer> tokenizer, const Task& task,
                   const EvaluateOptions& options = {});

// What an evaluation's settings mean for perplexity.
PerplexityOptions perplexity_options(const TaskConfig& config, const EvaluateOptions& options);

// Any of task_names(): what evaluate() finds, or measure_perplexity(), as score.json has it.
OrderedJson evaluate_task(const Model& model, std::shared_ptr<const Tokenizer> tokenizer, const TaskConfig& config,
                          const EvaluateOptions& options = {});

// Log-probability of each continuation after the prompt, summed over its tokens.
std::vector<double> continuation_log_probabilities(const Model& model, const std::vector<std::int32_t>& prompt,
                                                   const std::vector<std::vector<std::int32_t>>& continuations);

// Accuracy on a task as a figure of the training loop: "accuracy", "standard_error".
class TaskEvaluator : public Evaluator {
 public:
  TaskEvaluator(std::string name, std::shared_ptr<const Task> task, std::shared_ptr<const Tokenizer> tokenizer);
  std::string name() const override { return name_; }
  std::map<std::string, double> evaluate(const Model& model) override;

 private:
  std::string name_;
  std::shared_ptr<const Task> task_;
  std::shared_ptr<const Tokenizer> tokenizer_;
};

}  // namespace molt
