#include "evaluate/tasks/listed.h"

namespace molt::tasks {

const char* const boxed_instruction = "Please reason step by step, and put your final answer within \\boxed{}.";

Listed::Listed(const TaskConfig& config, Layout layout) : config_(config), layout_(std::move(layout)) {
  if (!config.instruction.empty()) layout_.instruction = config.instruction == "none" ? "" : config.instruction;
}

std::string Listed::asked(const std::string& question) const {
  return layout_.instruction.empty() ? question : question + "\n" + layout_.instruction;
}

std::string Listed::plain(const std::string& question) const {
  return layout_.before + asked(question) + layout_.after;
}

void Listed::add_example(const std::string& question, const std::string& worked) {
  example_text_ += plain(question) + " " + worked + "\n\n";
  example_turns_.push_back({"user", asked(question)});
  example_turns_.push_back({"assistant", worked});
}

void Listed::add(TaskItem item, const std::string& question) {
  if (!chat()) {
    item.prompt = example_text_ + plain(question);
    items_.push_back(std::move(item));
    return;
  }
  item.messages = example_turns_;
  item.messages.push_back({"user", asked(question)});
  add_as_is(std::move(item));
}

void Listed::add_as_is(TaskItem item) {
  const bool talks = !item.messages.empty();
  if (talks && !config_.system.empty() && item.messages.front().role != "system")
    item.messages.insert(item.messages.begin(), {"system", config_.system});
  items_.push_back(std::move(item));
}

}  // namespace molt::tasks
