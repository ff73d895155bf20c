// A task whose items are known from the start, laid out as plain text or as a conversation.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "evaluate/task.h"

namespace molt::tasks {

// "Please reason step by step, and put your final answer within \boxed{}."
extern const char* const boxed_instruction;

// What stands around a question in the plain form, and what is said with it.
struct Layout {
  std::string before = {}, after = {};
  std::string instruction = {};
};

class Listed : public Task {
 public:
  // `layout.instruction` is the task's own; the configuration may say another one.
  Listed(const TaskConfig& config, Layout layout);
  const TaskConfig& config() const override { return config_; }
  const std::vector<TaskItem>& items() const override { return items_; }
  std::int64_t max_tokens() const override { return config_.max_tokens > 0 ? config_.max_tokens : own_max_tokens(); }

 protected:
  virtual std::int64_t own_max_tokens() const = 0;
  bool chat() const { return config_.form == "chat"; }
  // A worked example before all questions that are added later.
  void add_example(const std::string& question, const std::string& worked);
  // Lays the question out and takes the item, whose prompt and messages this sets.
  void add(TaskItem item, const std::string& question);
  // As it is, without layout and examples; a conversation gets the system prompt unless it begins with one.
  void add_as_is(TaskItem item);

 private:
  std::string plain(const std::string& question) const;
  std::string asked(const std::string& question) const;

  TaskConfig config_;
  Layout layout_;
  std::string example_text_;
  std::vector<ChatMessage> example_turns_;
  std::vector<TaskItem> items_;
};

}  // namespace molt::tasks
