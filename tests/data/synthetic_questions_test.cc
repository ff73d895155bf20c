// Texts with more than one question, with people of few names, and with equations before the steps.
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <map>
#include <set>

#include "data/synthetic/problems.h"
#include "data/synthetic_reader.h"

namespace molt {
namespace synthetic_questions_test {

using synthetic_reader::read;
using synthetic_reader::Reading;
using synthetic_reader::split;

// What a solution says of whom: "kim = 3 . jan = 3 * 2 = 6 . answer : 6" is of kim and jan.
std::set<std::string> solved(const std::string& solution) {
  const std::vector<std::string> words = split(solution);
  std::set<std::string> names;
  for (std::size_t at = 0; at + 1 < words.size(); ++at) {
    if (words[at + 1] == "=" && std::isalpha(static_cast<unsigned char>(words[at][0]))) names.insert(words[at]);
  }
  return names;
}

TEST(SyntheticQuestions, EveryQuestionOfATextIsAnsweredFromFactsOfItsOwn) {
  SyntheticConfig config;
  config.questions = 16;
  config.distractor_tokens = 300;
  for (std::uint64_t i = 0; i < 40; ++i) {
    const Problem problem = make_problem(config, i);
    ASSERT_EQ(problem.further.size(), 15u);
    std::vector<Problem::Turn> turns = problem.further;
    turns.insert(turns.begin(), {"", problem.completion});
    std::size_t last = 0;  // token behind the statements
    for (const auto& [key, statement] : read(problem.prompt).world) last = std::max(last, statement.end);
    std::string facts;
    const std::vector<std::string> tokens = split(problem.prompt);
    for (std::size_t at = 0; at < last; ++at) facts += tokens[at] + " ";
    std::int64_t total = count_tokens(problem.prompt);
    std::set<std::pair<std::string, std::string>> used;  // names with items
    for (const auto& [question, solution] : turns) {
      const Reading reading = read(question.empty() ? problem.prompt : facts + question);
      EXPECT_TRUE(check_answer(solution, std::to_string(reading.value(reading.asked)))) << facts << question << solution;
      for (const std::string& name : solved(solution))
        EXPECT_TRUE(used.emplace(name, reading.asked.second).second) << name << " serves two questions";
      total += count_tokens(question) + count_tokens(solution);
    }
    EXPECT_EQ(problem.tokens, total);
  }
}

// " ann apples = 1 . answer : 1", sentence by sentence without full stops: {{"ann", "apples", "=", "1"}, {"answer", ":", "1"}}.
std::vector<std::vector<std::string>> sentences(const std::string& text) {
  std::vector<std::vector<std::string>> result(1);
  for (const std::string& token : split(text)) {
    if (token == ".")
      result.emplace_back();
    else
      result.back().push_back(token);
  }
  return result;
}

TEST(SyntheticQuestions, EquationsLeadFromTheAskedQuantityToTheSameSteps) {
  SyntheticConfig plain, told;
  told.equations = true;
  for (std::uint64_t i = 0; i < 200; ++i) {
    const Problem problem = make_problem(plain, i), longer = make_problem(told, i);
    ASSERT_EQ(problem.prompt, longer.prompt);
    ASSERT_EQ(problem.answer, longer.answer);
    const Reading reading = read(problem.prompt);
    std::string steps;
    std::set<std::string> wanted = {reading.asked.first};  // that an equation has named
    for (std::vector<std::string> tokens : sentences(longer.completion)) {
      const bool answer = tokens[0] == "answer";
      if (!answer) {
        ASSERT_TRUE(wanted.contains(tokens[0])) << longer.completion;
        ASSERT_EQ(tokens[1], reading.asked.second + "s");
        tokens.erase(tokens.begin() + 1);
      }
      std::set<std::string> operands, named;
      for (auto token = tokens.begin() + 2; token != tokens.end(); ++token) {
        if ((*token)[0] >= 'a') named.insert(*token);
      }
      if (named.empty()) {
        for (const std::string& token : tokens) steps += " " + token;
        if (!answer) steps += " .";
        continue;
      }
      for (const auto& [hole, person] : reading.world.at({tokens[0], reading.asked.second}).people) {
        if (hole != 'A') operands.insert(person);
      }
      EXPECT_EQ(named, operands) << longer.completion;
      wanted.insert(named.begin(), named.end());
    }
    EXPECT_EQ(steps, problem.completion);
  }
}

TEST(SyntheticQuestions, FewNamesHaveThingsOfSeveralKinds) {
  SyntheticConfig config;
  config.names = 12;
  config.questions = 8;
  config.distractor_tokens = 200;
  for (std::uint64_t i = 0; i < 20; ++i) {
    const Problem problem = make_problem(config, i);
    std::map<std::string, int> kinds;
    for (const auto& [key, statement] : read(problem.prompt).world) ++kinds[key.first];
    EXPECT_LE(kinds.size(), 12u) << problem.prompt;
    EXPECT_TRUE(std::all_of(kinds.begin(), kinds.end(), [](const auto& name) { return name.second > 1; })) << problem.prompt;
  }
}

TEST(SyntheticQuestions, NoQuestionOfATextIsOfTheOtherSplit) {
  SyntheticConfig config;
  config.steps_max = 2;
  std::set<std::string> tested;
  config.split = "test";
  for (std::uint64_t i = 0; i < 400; ++i) {
    const Reading reading = read(make_problem(config, i).prompt);
    tested.insert(reading.expression(reading.asked));
  }
  config.split = "train";
  config.questions = 4;
  for (std::uint64_t i = 0; i < 400; ++i) {
    const Problem problem = make_problem(config, i);
    const Reading reading = read(problem.prompt);
    for (const Problem::Turn& turn : problem.further) {
      const std::vector<std::string> asked = split(turn.question);
      const auto asks = [&](const std::string& word) { return std::count(asked.begin(), asked.end(), word) > 0; };
      for (const auto& [key, statement] : reading.world) {
        if (!asks(key.first) || !(asks(key.second) || asks(key.second + "s"))) continue;
        EXPECT_FALSE(tested.contains(reading.expression(key))) << reading.expression(key);
      }
    }
  }
}

}  // namespace synthetic_questions_test
}  // namespace molt
