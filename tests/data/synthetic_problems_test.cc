#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "data/synthetic/problems.h"
#include "data/synthetic_reader.h"

namespace molt {
namespace synthetic_problems_test {

using synthetic_reader::read;
using synthetic_reader::Reading;
using synthetic_reader::split;

// Follows a chain step by step: each step is right, uses only numbers already reached, and the last names the answer.
void check_chain(const Problem& problem, const Reading& reading, std::int64_t numbers_max) {
  const std::vector<std::string> tokens = split(problem.completion);
  std::map<std::string, std::int64_t> known;
  std::int64_t computed = 0;
  std::size_t at = 0;
  while (tokens[at] != "answer") {
    const std::string name = tokens[at];
    const auto& statement = reading.world.at({name, reading.asked.second});
    for (const auto& [hole, person] : statement.people) {
      ASSERT_TRUE(hole == 'A' || known.contains(person)) << person << " is used before it is known: " << problem.completion;
    }
    if (statement.relation != synthetic::Relation::given) ++computed;
    ASSERT_EQ(tokens[at + 1], "=");
    std::int64_t value = std::stoll(tokens[at + 2]);
    at += 3;
    if (tokens[at] != ".") {
      const std::int64_t left = value, right = std::stoll(tokens[at + 1]);
      ASSERT_EQ(left, known.at(statement.people.at('B'))) << problem.completion;
      const auto second = statement.people.find('C');
      ASSERT_EQ(right, second == statement.people.end() ? statement.constant : known.at(second->second)) << problem.completion;
      value = std::stoll(tokens[at + 3]);
      const char symbol = tokens[at][0];
      ASSERT_EQ(value, symbol == '+' ? left + right : symbol == '-' ? left - right : symbol == '*' ? left * right : left / right);
      at += 4;
    }
    ASSERT_EQ(tokens[at++], ".");
    ASSERT_GE(value, 0);
    ASSERT_LE(value, numbers_max);
    ASSERT_EQ(value, reading.value({name, reading.asked.second})) << problem.prompt << problem.completion;
    ASSERT_TRUE(known.emplace(name, value).second) << name << " is computed twice";
  }
  EXPECT_EQ(computed, problem.steps);
  EXPECT_EQ(std::to_string(known.at(reading.asked.first)), problem.answer);
  EXPECT_EQ(known.size() + static_cast<std::size_t>(problem.distractors), reading.world.size());
}

TEST(Synthetic, TextAloneDeterminesTheAnswerAndTheChainReachesIt) {
  SyntheticConfig plain, wide;
  wide.steps_min = 1;
  wide.steps_max = 12;
  wide.items = 3;
  wide.distractors_max = 20;
  wide.numbers_max = 500;
  wide.operands_max = 60;
  wide.split = "all";
  for (const SyntheticConfig& config : {plain, wide}) {
    for (std::uint64_t i = 0; i < 1500; ++i) {
      const Problem problem = make_problem(config, i);
      const Reading reading = read(problem.prompt);
      EXPECT_EQ(std::to_string(reading.value(reading.asked)), problem.answer) << problem.prompt;
      EXPECT_GE(problem.steps, config.steps_min);
      EXPECT_LE(problem.steps, config.steps_max);
      EXPECT_LE(problem.distractors, config.distractors_max);
      EXPECT_EQ(problem.tokens, count_tokens(problem.prompt) + count_tokens(problem.completion));
      EXPECT_TRUE(check_answer(problem.completion, problem)) << problem.completion;
      check_chain(problem, reading, config.numbers_max);
      if (HasFatalFailure()) return;
    }
  }
}

TEST(Synthetic, ProblemDependsOnSeedAndIndexAlone) {
  SyntheticConfig config;
  config.seed = 7;
  const Problem before = make_problem(config, 41);
  for (std::uint64_t i = 0; i < 10; ++i) make_problem(config, i);
  EXPECT_EQ(to_json(make_problem(config, 41)).dump(), to_json(before).dump());
  EXPECT_NE(make_problem(config, 42).prompt, before.prompt);
  config.seed = 8;
  EXPECT_NE(make_problem(config, 41).prompt, before.prompt);

  config.seed = 1;
  const Problem pinned = make_problem(config, 2);  // the same on every machine
  EXPECT_EQ(pinned.prompt,
            "jan owns as many rings as rex and kit do combined . add 7 to the rings of kit and you get the rings of ivy . "
            "compared with ivy , rex has a third as many rings . hal would need 13 more rings to match jan . kit owns 20 rings . "
            "how many rings does hal have ?");
  EXPECT_EQ(pinned.completion,
            " kit = 20 . ivy = 20 + 7 = 27 . rex = 27 / 3 = 9 . jan = 9 + 20 = 29 . hal = 29 - 13 = 16 . answer : 16");
}

// Problems this small meet the same graph under other names all the time, so the splits would overlap if names mattered.
TEST(Synthetic, TrainAndTestShareNoGraphUnderRenaming) {
  SyntheticConfig train;
  train.steps_min = 1;
  train.steps_max = 2;
  train.operands_max = 9;
  SyntheticConfig test = train;
  test.split = "test";
  test.seed = 5;
  std::map<std::string, std::uint64_t> hashes;
  std::map<std::string, std::set<std::string>> prompts;
  std::set<std::string> tested;
  for (std::uint64_t i = 0; i < 12000; ++i) {
    for (const SyntheticConfig* config : {&train, &test}) {
      if (config == &test && i >= 4000) continue;
      const Problem problem = make_problem(*config, i);
      const Reading reading = read(problem.prompt);
      const std::string graph = reading.expression(reading.asked);
      EXPECT_EQ(hashes.emplace(graph, problem.graph).first->second, problem.graph) << graph;
      (config == &train ? prompts[graph].insert(problem.prompt) : tested.insert(graph));
    }
  }
  std::size_t renamed = 0;
  std::set<std::uint64_t> distinct;
  for (const auto& [graph, texts] : prompts) renamed += texts.size() > 1;
  for (const auto& [graph, hash] : hashes) distinct.insert(hash);
  EXPECT_GT(renamed, 500u);
  EXPECT_GT(tested.size(), 100u);
  EXPECT_EQ(distinct.size(), hashes.size()) << "different graphs, one hash";
  for (const std::string& graph : tested) EXPECT_FALSE(prompts.contains(graph)) << graph << " is in both";
}

TEST(Synthetic, EverySplitIsPartOfAll) {
  SyntheticConfig config;
  config.split = "all";
  int tests = 0;
  for (std::uint64_t i = 0; i < 8000; ++i) tests += synthetic::is_test_graph(make_problem(config, i).graph);
  EXPECT_NEAR(tests, 500, 100);
}

TEST(Synthetic, DistractorsFillTheirTokenBudget) {
  for (const std::int64_t budget : {100, 1000, 4000}) {
    SyntheticConfig config;
    config.distractor_tokens = budget;
    std::int64_t farthest = 0;
    for (std::uint64_t i = 0; i < 20; ++i) {
      const Problem problem = make_problem(config, i);
      const Reading reading = read(problem.prompt);
      EXPECT_EQ(std::to_string(reading.value(reading.asked)), problem.answer);
      std::int64_t unneeded = 0;
      const std::vector<std::string> chain = split(problem.completion);
      const std::set<std::string> names(chain.begin(), chain.end());
      for (const auto& [key, statement] : reading.world) {
        unneeded += key.second != reading.asked.second || !names.contains(key.first);
      }
      EXPECT_EQ(unneeded, problem.distractors);
      SyntheticConfig bare = config;
      bare.distractor_tokens = 0;
      bare.distractors_max = 0;
      EXPECT_NEAR(problem.tokens - make_problem(bare, i).tokens, budget, 20);
      farthest = std::max(farthest, problem.distance);
    }
    EXPECT_GT(farthest, budget * 8 / 10);
  }
}

TEST(Synthetic, DistractorTokensAreSpreadOverDoublings) {
  SyntheticConfig config;
  config.distractor_tokens_min = 16;
  config.distractor_tokens = 1024;
  int above = 0;
  for (std::uint64_t i = 0; i < 300; ++i) {
    const Problem problem = make_problem(config, i);
    const Reading reading = read(problem.prompt);
    EXPECT_EQ(std::to_string(reading.value(reading.asked)), problem.answer);
    above += problem.distance > 128;
  }
  EXPECT_GT(above, 100);  // half of them have more than 128 such tokens, most of these before a needed statement
  EXPECT_LT(above, 200);
}

TEST(Synthetic, DistanceCountsTokensBehindTheFarthestNeededStatement) {
  SyntheticConfig config;
  config.distractors_min = 2;
  for (std::uint64_t i = 0; i < 200; ++i) {
    const Problem problem = make_problem(config, i);
    const Reading reading = read(problem.prompt);
    const std::vector<std::string> chain = split(problem.completion);
    const std::set<std::string> needed(chain.begin(), chain.end());
    std::size_t first = problem.prompt.size(), last = 0;  // ends of the first needed and of the last statement, in tokens
    for (const auto& [key, statement] : reading.world) {
      if (needed.contains(key.first)) first = std::min(first, statement.end);
      last = std::max(last, statement.end);
    }
    const std::vector<std::string> tokens = split(problem.prompt);
    std::string between;
    for (std::size_t at = first; at < last; ++at) between += tokens[at] + " ";
    EXPECT_EQ(problem.distance, count_tokens(between)) << problem.prompt;
  }
}

TEST(Synthetic, VocabularyIsSmallCompleteAndWithoutWaste) {
  const std::vector<std::string> words = vocabulary_words();
  const std::set<std::string> vocabulary(words.begin(), words.end());
  EXPECT_EQ(vocabulary.size(), words.size());
  EXPECT_LT(words.size(), 300u);
  SyntheticConfig config;
  config.steps_max = 12;
  config.items = 24;
  config.distractors_max = 10;
  config.split = "all";
  std::set<std::string> seen;
  for (std::uint64_t i = 0; i < 4000; ++i) {
    const Problem problem = make_problem(config, i);
    for (const std::string& token : split(problem.prompt + problem.completion)) {
      if (token.find_first_not_of("0123456789") != std::string::npos) {
        seen.insert(token);
      } else {
        for (const char digit : token) seen.emplace(1, digit);
      }
    }
  }
  EXPECT_EQ(seen, vocabulary);
}

TEST(Synthetic, PhrasingsAreUsedAndCanBeReduced) {
  SyntheticConfig config;
  config.phrasings = 1;
  for (std::uint64_t i = 0; i < 200; ++i) {
    const std::string prompt = make_problem(config, i).prompt;
    EXPECT_EQ(prompt.find(','), std::string::npos);
    EXPECT_EQ(prompt.find("owns"), std::string::npos);
    EXPECT_NE(prompt.find("how many"), std::string::npos);
  }
}

TEST(Synthetic, DefaultsStayModest) {
  const SyntheticConfig config;
  constexpr int count = 4000;
  std::int64_t tokens = 0, longest = 0;
  std::map<std::string, int> answers;
  std::map<std::int64_t, int> steps;
  for (std::uint64_t i = 0; i < count; ++i) {
    const Problem problem = make_problem(config, i);
    tokens += problem.tokens;
    longest = std::max(longest, problem.tokens);
    ++answers[problem.answer];
    ++steps[problem.steps];
  }
  EXPECT_GT(tokens / count, 95);
  EXPECT_LT(tokens / count, 130);
  EXPECT_LT(longest, 256);
  EXPECT_GT(answers.size(), 80u);
  for (const auto& [answer, times] : answers) EXPECT_LT(times, count / 12) << "the answer " << answer << " is a good guess";
  for (const auto& [number, times] : steps) EXPECT_NEAR(times, count / 4, count / 20) << number << " steps";
}

TEST(Synthetic, StepsFollowTheirWeights) {
  SyntheticConfig config;
  config.steps_weights = {3, 0, 1, 0};
  std::map<std::int64_t, int> steps;
  for (std::uint64_t i = 0; i < 2000; ++i) ++steps[make_problem(config, i).steps];
  EXPECT_EQ(steps.size(), 2u);
  EXPECT_NEAR(steps[2], 1500, 100);
  EXPECT_NEAR(steps[4], 500, 100);
}

TEST(Synthetic, ProseTellsTheSameWorldsUnsolved) {
  SyntheticConfig traces, prose;
  prose.form = "prose";
  for (std::uint64_t i = 0; i < 100; ++i) {
    const Problem solved = make_problem(traces, i), told = make_problem(prose, i);
    EXPECT_TRUE(solved.prompt.starts_with(told.prompt + " "));
    EXPECT_EQ(read(told.prompt, false).world.size(), read(solved.prompt).world.size());
    EXPECT_EQ(told.graph, solved.graph);
    const OrderedJson record = to_json(told);
    EXPECT_EQ(record["text"], told.prompt);
    EXPECT_FALSE(record.contains("completion"));
    EXPECT_FALSE(record.contains("answer"));
  }
}

TEST(Synthetic, RecordHoldsWhatEvaluationAsksFor) {
  const Problem problem = make_problem({}, 3);
  const OrderedJson record = to_json(problem);
  EXPECT_EQ(record["id"], "train-0-3");
  EXPECT_EQ(record["prompt"], problem.prompt);
  EXPECT_EQ(record["completion"], problem.completion);
  EXPECT_EQ(record["answer"], problem.answer);
  EXPECT_EQ(record["steps"], problem.steps);
  EXPECT_EQ(record["distance"], problem.distance);
  EXPECT_EQ(record["distractors"], problem.distractors);
  EXPECT_EQ(std::stoull(record["graph"].get<std::string>(), nullptr, 16), problem.graph);
  EXPECT_EQ(record["graph"].get<std::string>().size(), 16u);
}

TEST(Synthetic, CountTokensCountsWordsDigitsAndMarks) {
  EXPECT_EQ(count_tokens(""), 0);
  EXPECT_EQ(count_tokens("jan has 45 apples ."), 6);
  EXPECT_EQ(count_tokens(" jan = 2 - 2 = 0."), 8);
}

}  // namespace synthetic_problems_test
}  // namespace molt
