#include "evaluate/task.h"

#include <algorithm>

#include "base/error.h"
#include "evaluate/tasks/kinds.h"

namespace molt {

TaskConfig::TaskConfig() {
  synthetic.split = "test";
}

void TaskConfig::visit(ConfigVisitor& v) {
  v.choice("name", name, task_names(), "Which task");
  v.field("data", data, "The task's file, JSONL or CSV; synthetic problems are made afresh without one");
  v.field("limit", limit, "Items at most; 0: all (512 of fresh synthetic problems)");
  v.field("shots", shots, "Worked examples before each question");
  v.field("shots_data", shots_data, "File that the examples come from");
  v.field("max_tokens", max_tokens, "New tokens of an answer at most; 0: the task's own limit");
  v.choice("form", form, {"plain", "chat"}, "Questions as plain text, or laid out by the model's chat template");
  v.field("system", system, "System prompt of the chat form");
  v.field("instruction", instruction, "Said with each question; empty: the task's own; none: nothing");
  v.field("samples", samples, "Generated answers of each item");
  v.field("temperature", temperature, "Of generated answers; 0 always takes the most probable token");
  v.field("top_p", top_p, "Only the most probable tokens that reach this sum");
  v.field("top_k", top_k, "Only the k most probable tokens, 0 for all");
  v.field("seed", seed, "Of the samples, and of the order of GPQA's choices");
  if (name == "synthetic") v.field("synthetic", synthetic, "Fresh problems, of the test split unless said otherwise");
  if (name != "perplexity") return;
  v.field("window", window, "Tokens that the model sees at once; 0: its context, 2,048 at most");
  v.field("stride", stride, "New tokens of each window but a text's first; 0: half a window");
}

std::string to_string(const GroupValue& value) {
  const auto* number = std::get_if<std::int64_t>(&value);
  return number ? std::to_string(*number) : std::get<std::string>(value);
}

const std::vector<std::string>& task_names() {
  static const std::vector<std::string> names = {"synthetic", "gsm8k", "math500", "aime24",    "amc23",
                                                 "mmlu",      "gpqa",  "answers", "perplexity"};
  return names;
}

std::unique_ptr<Task> make_task(const TaskConfig& config) {
  require(config.limit >= 0, "limit: found ", config.limit, ", expected 0 or more");
  require(config.samples >= 1, "samples: found ", config.samples, ", expected at least 1");
  require(config.shots <= 0 || !config.shots_data.empty(), "shots_data: expected the file that ", config.shots,
          " examples come from");
  const bool known = std::find(task_names().begin(), task_names().end(), config.name) != task_names().end();
  require(known, "task: found \"", config.name,
          "\", expected synthetic, gsm8k, math500, aime24, amc23, mmlu, gpqa, answers or perplexity");
  require(config.name != "perplexity",
          "task perplexity: it has no answers that are right or wrong, expected one of the other tasks");
  require(config.name == "synthetic" || !config.data.empty(), "task ", config.name, ": data: expected its file");
  if (config.name == "synthetic") return tasks::make_synthetic(config);
  if (config.name == "mmlu" || config.name == "gpqa") return tasks::make_multiple_choice(config);
  return tasks::make_final_answers(config);
}

}  // namespace molt
