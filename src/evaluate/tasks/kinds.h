// What make_task() chooses from; evaluate/task.h says what each reads.
#pragma once
#include <memory>

#include "evaluate/task.h"

namespace molt::tasks {

std::unique_ptr<Task> make_synthetic(const TaskConfig& config);
std::unique_ptr<Task> make_final_answers(const TaskConfig& config);
std::unique_ptr<Task> make_multiple_choice(const TaskConfig& config);

}  // namespace molt::tasks
