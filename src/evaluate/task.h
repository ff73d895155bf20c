// Tasks: questions with answers that can be checked, by generating text or by the likelihood of choices.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/config.h"
#include "data/synthetic/config.h"

namespace molt {

struct TaskItem {
  std::string id;
  std::string prompt;
  std::string expected;              // the answer of a generation task; the letter of the right choice
  std::vector<std::string> choices;  // continuations to be compared; empty: text is generated
  std::int64_t correct_choice = -1;
  std::map<std::string, std::int64_t> groups;  // scores are also given by these: {"steps": 3, "distance": 64}
};

class Task {
 public:
  virtual ~Task() = default;
  virtual std::string name() const = 0;
  virtual const std::vector<TaskItem>& items() const = 0;
  // The answer found in a generated text, "" when there is none.
  virtual std::string extract(const std::string& completion) const = 0;
  virtual bool correct(const TaskItem& item, const std::string& completion) const = 0;
  virtual std::int64_t max_tokens() const = 0;
  virtual std::vector<std::string> stop() const { return {}; }
};

struct TaskConfig {
  std::string name = "synthetic";
  std::string data;        // the task's JSONL file; for synthetic optional
  std::int64_t limit = 0;  // items at most; 0: all (of endless synthetic problems 512)
  std::int64_t shots = 0;  // worked examples before each question
  std::string shots_data;  // JSONL file that they come from, in the format of `data`
  std::int64_t max_tokens = 0;
  SyntheticConfig synthetic;
  TaskConfig();
  void visit(ConfigVisitor& visitor);
};

// Reads the task's file. A line that is malformed or lacks a field is a UserError that names file, line and field.
//   synthetic  problems of `molt synthesize` (a file, or made afresh from `synthetic`): final number; groups by steps and
//   distance gsm8k      {"question", "answer": "… #### 18"}: final number mmlu       {"question", "choices": […], "answer":
//   index, "type"}: the likeliest letter
std::unique_ptr<Task> make_task(const TaskConfig& config);

}  // namespace molt
