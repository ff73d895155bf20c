#include "evaluate/task.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"
#include "data/synthetic/problems.h"
#include "evaluate/answer/answer.h"

namespace molt {

TaskConfig::TaskConfig() {
  synthetic.split = "test";
}

void TaskConfig::visit(ConfigVisitor& v) {
  v.choice("name", name, {"synthetic", "gsm8k", "mmlu"}, "Which task");
  v.field("data", data, "JSONL file of the task; synthetic problems are made afresh without one");
  v.field("limit", limit, "Items at most; 0: all (512 of fresh synthetic problems)");
  v.field("shots", shots, "Worked examples before each question");
  v.field("shots_data", shots_data, "JSONL file that the examples come from");
  v.field("max_tokens", max_tokens, "New tokens of an answer at most; 0: the task's own limit");
  if (name == "synthetic") v.field("synthetic", synthetic, "Fresh problems, of the test split unless said otherwise");
}

namespace tasks {

constexpr std::int64_t kFreshProblems = 512;

// The objects of a JSONL file, at most `limit` (0: all).
void for_each_line(const fs::path& path, std::int64_t limit,
                   const std::function<void(const Json& object, const std::string& place, std::int64_t index)>& use) {
  LineReader reader(path);
  std::int64_t index = 0;
  for (std::string_view line; (limit == 0 || index < limit) && reader.next(line);) {
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const Json object = parse_json(line, reader.place());
    require(object.is_object(), reader.place(), ": found no object, expected one a line");
    use(object, reader.place(), index++);
  }
  require(index > 0, path.string(), ": the file holds no items");
}

// The largest power of two not above the value, 0 for 0: distances are grouped by it.
std::int64_t bucket(std::int64_t value) {
  std::int64_t power = 1;
  while (power * 2 <= value) power *= 2;
  return value > 0 ? power : 0;
}

class Listed : public Task {
 public:
  explicit Listed(const TaskConfig& config) : config_(config) {}
  std::string name() const override { return config_.name; }
  const std::vector<TaskItem>& items() const override { return items_; }
  std::int64_t max_tokens() const override { return config_.max_tokens > 0 ? config_.max_tokens : own_max_tokens(); }

 protected:
  virtual std::int64_t own_max_tokens() const = 0;

  TaskConfig config_;
  std::vector<TaskItem> items_;
};

class Synthetic : public Listed {
 public:
  explicit Synthetic(const TaskConfig& config) : Listed(config) {
    if (!config.data.empty()) {
      for_each_line(config.data, config.limit, [&](const Json& line, const std::string& place, std::int64_t) {
        add(get<std::string>(line, "id", place), get<std::string>(line, "prompt", place), get<std::string>(line, "answer", place),
            get<std::int64_t>(line, "steps", place), get<std::int64_t>(line, "distance", place));
      });
      return;
    }
    const std::int64_t count = config.limit > 0 ? config.limit : kFreshProblems;
    require(config.synthetic.form == "traces", "synthetic.form: found \"prose\", expected traces: prose asks nothing");
    for (std::int64_t i = 0; i < count; ++i) {
      const Problem problem = make_problem(config.synthetic, static_cast<std::uint64_t>(i));
      add(problem.id, problem.prompt, problem.answer, problem.steps, problem.distance);
    }
  }
  std::string extract(const std::string& completion) const override { return final_answer(completion).value_or(""); }
  bool correct(const TaskItem& item, const std::string& completion) const override {
    return check_answer(completion, item.expected);
  }

 private:
  void add(std::string id, std::string prompt, std::string answer, std::int64_t steps, std::int64_t distance) {
    items_.push_back(
        {std::move(id), std::move(prompt), std::move(answer), {}, -1, {{"steps", steps}, {"distance", bucket(distance)}}});
  }
  std::int64_t own_max_tokens() const override { return 256; }
};

class Gsm8k : public Listed {
 public:
  explicit Gsm8k(const TaskConfig& config) : Listed(config) {
    std::string examples;
    if (config.shots > 0) {
      require(!config.shots_data.empty(), "shots_data: expected the JSONL file that ", config.shots, " examples come from");
      for_each_line(config.shots_data, config.shots, [&](const Json& line, const std::string& place, std::int64_t) {
        examples += question(line, place) + " " + get<std::string>(line, "answer", place) + "\n\n";
      });
    }
    for_each_line(config.data, config.limit, [&](const Json& line, const std::string& place, std::int64_t index) {
      const auto answer = get<std::string>(line, "answer", place);
      const auto mark = answer.rfind("####");
      require(mark != std::string::npos, place, ": answer: found no \"####\", expected one before the final number");
      const std::string number = last_number(answer.substr(mark));
      require(!number.empty(), place, ": answer: found no number behind \"####\"");
      items_.push_back({concat("gsm8k-", index), examples + question(line, place), number, {}, -1, {}});
    });
  }
  std::string extract(const std::string& completion) const override {
    return last_number(completion.substr(0, completion.find('\n', std::min(completion.find("####"), completion.size()))));
  }
  bool correct(const TaskItem& item, const std::string& completion) const override {
    return extract(completion) == item.expected;
  }
  std::vector<std::string> stop() const override { return {"\nQuestion:"}; }

 private:
  static std::string question(const Json& line, const std::string& place) {
    return "Question: " + get<std::string>(line, "question", place) + "\nAnswer:";
  }
  std::int64_t own_max_tokens() const override { return 512; }
};

class Mmlu : public Listed {
 public:
  explicit Mmlu(const TaskConfig& config) : Listed(config) {
    std::string examples;
    if (config.shots > 0) {
      require(!config.shots_data.empty(), "shots_data: expected the JSONL file that ", config.shots, " examples come from");
      for_each_line(config.shots_data, config.shots, [&](const Json& line, const std::string& place, std::int64_t index) {
        const TaskItem item = read(line, place, index);
        examples += item.prompt + " " + item.expected + "\n\n";
      });
    }
    for_each_line(config.data, config.limit, [&](const Json& line, const std::string& place, std::int64_t index) {
      items_.push_back(read(line, place, index));
      items_.back().prompt = examples + items_.back().prompt;
    });
  }
  std::string extract(const std::string& completion) const override { return completion; }
  bool correct(const TaskItem& item, const std::string& completion) const override { return completion == item.expected; }

 private:
  static TaskItem read(const Json& line, const std::string& place, std::int64_t index) {
    TaskItem item;
    item.id = concat("mmlu-", index);
    item.prompt = get<std::string>(line, "question", place) + "\n";
    const auto choices = get<std::vector<std::string>>(line, "choices", place);
    item.correct_choice = get<std::int64_t>(line, "answer", place);
    const auto count = static_cast<std::int64_t>(choices.size());
    require(count >= 2 && count <= 26, place, ": choices: found ", count, ", expected 2 to 26");
    require(item.correct_choice >= 0 && item.correct_choice < count, place, ": answer: found ", item.correct_choice,
            ", expected 0 to ", count - 1);
    for (std::int64_t i = 0; i < count; ++i) {
      const std::string letter(1, static_cast<char>('A' + i));
      item.prompt += letter + ". " + choices[static_cast<std::size_t>(i)] + "\n";
      item.choices.push_back(" " + letter);
    }
    item.prompt += "Answer:";
    item.expected = item.choices[static_cast<std::size_t>(item.correct_choice)].substr(1);
    return item;
  }
  std::int64_t own_max_tokens() const override { return 1; }
};

}  // namespace tasks

std::unique_ptr<Task> make_task(const TaskConfig& config) {
  require(config.limit >= 0, "limit: found ", config.limit, ", expected 0 or more");
  require(config.name == "synthetic" || !config.data.empty(), "task ", config.name, ": data: expected its JSONL file");
  if (config.name == "synthetic") return std::make_unique<tasks::Synthetic>(config);
  if (config.name == "gsm8k") return std::make_unique<tasks::Gsm8k>(config);
  if (config.name == "mmlu") return std::make_unique<tasks::Mmlu>(config);
  fail("task: found \"", config.name, "\", expected synthetic, gsm8k or mmlu");
}

}  // namespace molt
