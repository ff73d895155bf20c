#include <nlohmann/json.hpp>

#include "base/error.h"
#include "evaluate/answer/answer.h"
#include "evaluate/tasks/kinds.h"
#include "evaluate/tasks/listed.h"
#include "evaluate/tasks/records.h"

namespace molt::tasks {
namespace final_answers {

// Problems whose solutions end with an answer that is compared as mathematics.
class FinalAnswers : public Listed {
 public:
  using Listed::Listed;
  std::string extract(const std::string& completion) const override { return extract_answer(completion); }
  bool correct(const TaskItem& item, const std::string& completion) const override {
    return answers_equal(extract(completion), item.expected);
  }
};

// A string or a number as text.
std::string text_of(const Json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

std::string member(const Json& record, std::initializer_list<const char*> keys, const std::string& place) {
  for (const char* key : keys)
    if (record.contains(key)) return get<std::string>(record, key, place);
  fail(place, ": found no \"", *keys.begin(), "\"");
}

std::string expected_answer(const Json& record, const std::string& place) {
  const auto answer = record.find("answer");
  if (answer != record.end() && !answer->is_null()) {
    require(answer->is_string() || answer->is_number(), place, ": answer: expected text or a number");
    return text_of(*answer);
  }
  const std::string boxed = boxed_answer(get<std::string>(record, "solution", place));
  require(!boxed.empty(), place, ": solution: found no \\boxed{} answer, and no field \"answer\"");
  return boxed;
}

class Gsm8k final : public FinalAnswers {
 public:
  explicit Gsm8k(const TaskConfig& config)
      : FinalAnswers(config, {"Question: ", "\nAnswer:", config.form == "chat" ? boxed_instruction : ""}) {
    if (config.shots > 0) {
      for_each_record(config.shots_data, config.shots, [&](const Json& line, const std::string& place, std::int64_t) {
        add_example(get<std::string>(line, "question", place), get<std::string>(line, "answer", place));
      });
    }
    for_each_record(config.data, config.limit, [&](const Json& line, const std::string& place, std::int64_t index) {
      const auto answer = get<std::string>(line, "answer", place);
      const auto mark = answer.rfind("####");
      require(mark != std::string::npos, place, ": answer: found no \"####\", expected one before the final number");
      TaskItem item;
      item.id = concat("gsm8k-", index);
      item.expected = last_number(answer.substr(mark));
      require(!item.expected.empty(), place, ": answer: found no number behind \"####\"");
      add(std::move(item), get<std::string>(line, "question", place));
    });
  }
  // The boxed number, the one behind "####", or the last one.
  std::string extract(const std::string& completion) const override {
    if (const std::string boxed = last_number(boxed_answer(completion)); !boxed.empty()) return boxed;
    return last_number(completion.substr(0, completion.find('\n', std::min(completion.find("####"), completion.size()))));
  }
  std::vector<std::string> stop() const override {
    return chat() ? std::vector<std::string>() : std::vector<std::string>{"\nQuestion:"};
  }

 private:
  std::int64_t own_max_tokens() const override { return chat() ? 2048 : 512; }
};

// MATH-500, AIME, AMC.
class Competition final : public FinalAnswers {
 public:
  explicit Competition(const TaskConfig& config) : FinalAnswers(config, {"Problem: ", "\nSolution:", boxed_instruction}) {
    if (config.shots > 0) {
      for_each_record(config.shots_data, config.shots, [&](const Json& record, const std::string& place, std::int64_t) {
        add_example(problem(record, place), get<std::string>(record, "solution", place));
      });
    }
    for_each_record(config.data, config.limit, [&](const Json& record, const std::string& place, std::int64_t index) {
      TaskItem item;
      item.id = concat(config.name, "-", index);
      item.expected = expected_answer(record, place);
      for (const char* key : {"level", "difficulty"}) add_level(item, record, key);
      for (const char* key : {"subject", "type"})
        if (record.contains(key) && record[key].is_string()) item.groups.emplace("subject", record[key].get<std::string>());
      add(std::move(item), problem(record, place));
    });
  }
  std::vector<std::string> stop() const override {
    return chat() ? std::vector<std::string>() : std::vector<std::string>{"\nProblem:"};
  }

 private:
  static std::string problem(const Json& record, const std::string& place) {
    return member(record, {"problem", "question"}, place);
  }
  // 5 or "Level 5"
  static void add_level(TaskItem& item, const Json& record, const char* key) {
    if (!record.contains(key)) return;
    const std::string level = last_number(text_of(record[key]));
    if (!level.empty() && level.size() < 4 && level.find('.') == std::string::npos)
      item.groups.emplace("level", std::stoll(level));
  }
  std::int64_t own_max_tokens() const override { return chat() ? 8192 : 2048; }
};

class Answers final : public FinalAnswers {
 public:
  explicit Answers(const TaskConfig& config) : FinalAnswers(config, {}) {
    require(config.shots == 0, "task answers: shots: found ", config.shots, ", expected 0: its prompts are taken as they are");
    for_each_record(config.data, config.limit, [&](const Json& record, const std::string& place, std::int64_t index) {
      TaskItem item;
      item.id = concat("answers-", index);
      item.expected = expected_answer(record, place);
      if (!record.contains("messages")) return add(std::move(item), get<std::string>(record, "prompt", place));
      require(record["messages"].is_array(), place, ": messages: expected a list");
      for (const Json& message : record["messages"])
        item.messages.push_back({get<std::string>(message, "role", place), get<std::string>(message, "content", place)});
      require(!item.messages.empty(), place, ": messages: found none, expected at least one");
      add_as_is(std::move(item));
    });
  }

 private:
  std::int64_t own_max_tokens() const override { return 2048; }
};

}  // namespace final_answers

std::unique_ptr<Task> make_final_answers(const TaskConfig& config) {
  using namespace final_answers;
  if (config.name == "gsm8k") return std::make_unique<Gsm8k>(config);
  if (config.name == "answers") return std::make_unique<Answers>(config);
  return std::make_unique<Competition>(config);
}

}  // namespace molt::tasks
