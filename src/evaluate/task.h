// Tasks: questions with answers that can be checked, by generating text or by the likelihood of choices.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "base/config.h"
#include "data/synthetic/config.h"

namespace molt {

struct ChatMessage {
  std::string role, content;
};

using GroupValue = std::variant<std::int64_t, std::string>;
std::string to_string(const GroupValue& value);

struct TaskItem {
  std::string id;
  std::string prompt;                      // of the plain form; examples included
  std::vector<ChatMessage> messages = {};  // of the chat form, which has no prompt before a template has laid it out
  std::string expected;                    // the answer of a generation task; the letter of the right choice
  std::vector<std::string> choices = {};   // continuations to be compared; empty: text is generated
  std::int64_t correct_choice = -1;
  std::map<std::string, GroupValue> groups = {};  // scores are also given by these: {"steps": 3, "subject": "Algebra"}
};

struct TaskConfig {
  std::string name = "synthetic";
  std::string data;        // the task's file; for synthetic optional
  std::int64_t limit = 0;  // items at most; 0: all (of endless synthetic problems 512)
  std::int64_t shots = 0;  // worked examples before each question
  std::string shots_data;  // file that they come from, in the format of `data`
  std::int64_t max_tokens = 0;
  std::string form = "plain";  // plain, chat
  std::string system;          // system prompt of the chat form
  std::string instruction;     // said with each question; empty: the task's own; "none": nothing
  std::int64_t samples = 1;    // generated answers of each item
  double temperature = 0;      // of generated answers
  double top_p = 1;            // as in infer/sampling.h
  std::int64_t top_k = 0;
  std::int64_t seed = 0;  // of sampling, and of the order of GPQA's choices
  SyntheticConfig synthetic;
  std::int64_t window = 0, stride = 0;  // of perplexity (perplexity.h)
  TaskConfig();
  void visit(ConfigVisitor& visitor);
};

class Task {
 public:
  virtual ~Task() = default;
  virtual const TaskConfig& config() const = 0;
  std::string name() const { return config().name; }
  virtual const std::vector<TaskItem>& items() const = 0;
  // The answer found in what a model said (its thinking left out), "" when there is none.
  virtual std::string extract(const std::string& completion) const = 0;
  virtual bool correct(const TaskItem& item, const std::string& completion) const = 0;
  virtual std::int64_t max_tokens() const = 0;
  virtual std::vector<std::string> stop() const { return {}; }
};

// Every word that TaskConfig::name may be: tasks, and perplexity, which is no Task but is measured on a file like them
// (evaluate_task).
const std::vector<std::string>& task_names();

// Reads the task's file, JSON lines or, where it is called *.csv, CSV with a line of names. A record that is malformed or lacks
// a field is a UserError that names file, line and field.
//   synthetic  problems of `molt synthesize` (a file, or made afresh from `synthetic`): final number; groups by steps and
//   distance gsm8k      {"question", "answer": "… #### 18"} math500, aime24, amc23
//              {"problem" or "question", "answer" or "solution" with a \boxed{} answer}: final answers as answers_equal()
//              compares them; groups by "level" (or "difficulty") and "subject" (or "type")
//   mmlu       {"question", "choices": […], "answer": index}: the likeliest letter; of the chat form the letter answered
//   gpqa       {"Question", "Correct Answer", "Incorrect Answer 1" … "3"}: the same, choices shuffled by `seed`
//   answers    {"prompt" or "messages", "answer"}: prompts as they are, final answers as above
// UserError for perplexity, which has no answers.
std::unique_ptr<Task> make_task(const TaskConfig& config);

}  // namespace molt
