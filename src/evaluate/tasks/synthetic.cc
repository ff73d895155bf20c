#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/synthetic/problems.h"
#include "evaluate/tasks/kinds.h"
#include "evaluate/tasks/listed.h"
#include "evaluate/tasks/records.h"

namespace molt::tasks {
namespace synthetic_task {

constexpr std::int64_t kFreshProblems = 512;

// The largest power of two not above the value, 0 for 0: distances are grouped by it.
std::int64_t bucket(std::int64_t value) {
  std::int64_t power = 1;
  while (power * 2 <= value) power *= 2;
  return value > 0 ? power : 0;
}

class Synthetic final : public Listed {
 public:
  explicit Synthetic(const TaskConfig& config) : Listed(config, {}) {
    if (!config.data.empty()) {
      for_each_record(config.data, config.limit, [&](const Json& line, const std::string& place, std::int64_t) {
        add_problem(get<std::string>(line, "id", place), get<std::string>(line, "prompt", place),
                    get<std::string>(line, "answer", place), get<std::int64_t>(line, "steps", place),
                    get<std::int64_t>(line, "distance", place));
      });
      return;
    }
    const std::int64_t count = config.limit > 0 ? config.limit : kFreshProblems;
    require(config.synthetic.form == "traces", "synthetic.form: found \"prose\", expected traces: prose asks nothing");
    for (std::int64_t i = 0; i < count; ++i) {
      const Problem problem = make_problem(config.synthetic, static_cast<std::uint64_t>(i));
      add_problem(problem.id, problem.prompt, problem.answer, problem.steps, problem.distance);
    }
  }
  std::string extract(const std::string& completion) const override { return final_answer(completion).value_or(""); }
  bool correct(const TaskItem& item, const std::string& completion) const override {
    return check_answer(completion, item.expected);
  }

 private:
  void add_problem(std::string id, const std::string& prompt, std::string answer, std::int64_t steps, std::int64_t distance) {
    TaskItem item;
    item.id = std::move(id);
    item.expected = std::move(answer);
    item.groups = {{"steps", steps}, {"distance", bucket(distance)}};
    add(std::move(item), prompt);
  }
  std::int64_t own_max_tokens() const override { return 256; }
};

}  // namespace synthetic_task

std::unique_ptr<Task> make_synthetic(const TaskConfig& config) {
  return std::make_unique<synthetic_task::Synthetic>(config);
}

}  // namespace molt::tasks
