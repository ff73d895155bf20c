#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/random.h"
#include "evaluate/answer/answer.h"
#include "evaluate/tasks/kinds.h"
#include "evaluate/tasks/listed.h"
#include "evaluate/tasks/records.h"

namespace molt::tasks {
namespace multiple_choice {

constexpr const char* kInstruction = "Please reason step by step, and put the letter of the right choice within \\boxed{}.";

struct Question {
  std::string text;
  std::vector<std::string> choices;
  std::int64_t right = 0;
};

Question read_mmlu(const Json& record, const std::string& place) {
  Question question{get<std::string>(record, "question", place), get<std::vector<std::string>>(record, "choices", place),
                    get<std::int64_t>(record, "answer", place)};
  const auto count = std::ssize(question.choices);
  require(count >= 2 && count <= 26, place, ": choices: found ", count, ", expected 2 to 26");
  require(question.right >= 0 && question.right < count, place, ": answer: found ", question.right, ", expected 0 to ",
          count - 1);
  return question;
}

// The right answer is named first in the file, so the order is drawn.
Question read_gpqa(const Json& record, const std::string& place, std::uint64_t seed) {
  std::vector<std::string> answers;
  for (const char* key : {"Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"})
    answers.push_back(get<std::string>(record, key, place));
  std::vector<std::size_t> order = {0, 1, 2, 3};
  Random(seed).shuffle(order);
  Question question{get<std::string>(record, "Question", place), {}, 0};
  for (std::size_t i = 0; i < order.size(); ++i) {
    question.choices.push_back(answers[order[i]]);
    if (order[i] == 0) question.right = static_cast<std::int64_t>(i);
  }
  return question;
}

class MultipleChoice final : public Listed {
 public:
  explicit MultipleChoice(const TaskConfig& config)
      : Listed(config, {"", "\nAnswer:", config.form == "chat" ? kInstruction : ""}) {
    if (config.shots > 0) {
      for_each_record(config.shots_data, config.shots, [&](const Json& record, const std::string& place, std::int64_t index) {
        const Question question = read(record, place, index, "examples");
        add_example(words(question), letter(question.right));
      });
    }
    for_each_record(config.data, config.limit, [&](const Json& record, const std::string& place, std::int64_t index) {
      const Question question = read(record, place, index, "choices");
      TaskItem item;
      item.id = concat(config.name, "-", index);
      item.expected = letter(question.right);
      if (!chat()) {
        item.correct_choice = question.right;
        for (std::int64_t i = 0; i < std::ssize(question.choices); ++i) item.choices.push_back(" " + letter(i));
      }
      if (const auto domain = record.find("High-level domain"); domain != record.end() && domain->is_string())
        item.groups["domain"] = domain->get<std::string>();
      add(std::move(item), words(question));
    });
  }
  std::string extract(const std::string& completion) const override { return extract_choice(completion); }
  bool correct(const TaskItem& item, const std::string& completion) const override {
    return extract(completion) == item.expected;
  }

 private:
  Question read(const Json& record, const std::string& place, std::int64_t index, const char* stream) const {
    if (config().name == "mmlu") return read_mmlu(record, place);
    return read_gpqa(record, place,
                     derive_seed(static_cast<std::uint64_t>(config().seed), stream, static_cast<std::uint64_t>(index)));
  }
  static std::string letter(std::int64_t i) { return std::string(1, static_cast<char>('A' + i)); }
  static std::string words(const Question& question) {
    std::string text = question.text;
    for (std::int64_t i = 0; i < std::ssize(question.choices); ++i)
      text += "\n" + letter(i) + ". " + question.choices[static_cast<std::size_t>(i)];
    return text;
  }
  std::int64_t own_max_tokens() const override { return 4096; }
};

}  // namespace multiple_choice

std::unique_ptr<Task> make_multiple_choice(const TaskConfig& config) {
  return std::make_unique<multiple_choice::MultipleChoice>(config);
}

}  // namespace molt::tasks
