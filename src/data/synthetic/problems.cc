#include "data/synthetic/problems.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "data/synthetic/phrases.h"

namespace molt {
namespace problem_parts {

using synthetic::World;

bool wanted(const std::string& split, std::uint64_t hash) {
  return split == "all" || synthetic::is_test_graph(hash) == (split == "test");
}

// Draws graphs until one belongs to the split; its hash goes to `hash`.
World draw_graph(const SyntheticConfig& config, Random& random, std::uint64_t& hash) {
  constexpr int attempts = 20000;  // the rarer split holds one graph in sixteen
  for (int attempt = 0; attempt < attempts; ++attempt) {
    World world = synthetic::make_graph(config, random);
    hash = synthetic::graph_hash(world);
    if (wanted(config.split, hash)) return world;
  }
  fail("synthetic: found no ", config.split, " problem of ", config.steps_min, " to ", config.steps_max,
       " steps with numbers up to ", config.operands_max, ", expected more steps or a larger operands_max");
}

// All questions of a problem in one world, each of a graph of the split; the first one's hash goes to `hash`.
World draw_world(const SyntheticConfig& config, Random& random, std::uint64_t& hash) {
  World world = draw_graph(config, random, hash);
  std::uint64_t further = 0;
  for (std::int64_t i = 1; i < config.questions; ++i) synthetic::append_graph(world, draw_graph(config, random, further));
  return world;
}

// How many tokens of distractors a problem has.
std::int64_t draw_distractor_tokens(const SyntheticConfig& config, Random& random) {
  if (config.distractor_tokens_min == 0) return config.distractor_tokens;
  const double low = static_cast<double>(config.distractor_tokens_min), high = static_cast<double>(config.distractor_tokens);
  return std::llround(low * std::pow(high / low, random.uniform()));
}

// One statement a quantity, and how many tokens it has.
struct Statement {
  std::string text;
  std::int64_t tokens = 0;
  bool needed = false;  // by the first question
};

Statement tell(const World& world, std::size_t index, const SyntheticConfig& config, Random& random) {
  Statement statement;
  synthetic::append_statement(statement.text, world, world.quantities[index], random.below(config.phrasings));
  statement.tokens = count_tokens(statement.text);
  statement.needed = index < static_cast<std::size_t>(world.chains.front().end);
  return statement;
}

std::vector<Statement> tell_world(World& world, const SyntheticConfig& config, Random& random) {
  synthetic::Entities entities(config.names, random);
  synthetic::name_needed(world, entities, random);
  entities.use_items(config.items);
  std::vector<Statement> statements;
  for (std::size_t i = 0; i < world.quantities.size(); ++i) statements.push_back(tell(world, i, config, random));

  const bool by_tokens = config.distractor_tokens > 0;
  std::int64_t left =
      by_tokens ? draw_distractor_tokens(config, random) : random.between(config.distractors_min, config.distractors_max);
  while (left > 0 && synthetic::add_distractor(world, config, entities, random)) {
    Statement statement = tell(world, world.quantities.size() - 1, config, random);
    left -= by_tokens ? statement.tokens : 1;
    if (left < 0) {
      world.quantities.pop_back();
      break;
    }
    statements.push_back(std::move(statement));
  }
  random.shuffle(statements);
  return statements;
}

Problem::Turn ask(const World& world, const synthetic::Chain& chain, const SyntheticConfig& config, Random& random) {
  Problem::Turn turn{" ", ""};
  synthetic::append_question(turn.question, world.target(chain), random.below(config.phrasings));
  synthetic::append_solution(turn.solution, world, chain, config.equations);
  return turn;
}

}  // namespace problem_parts

Problem make_problem(const SyntheticConfig& config, std::uint64_t index) {
  using namespace problem_parts;
  config.check();
  Random random(derive_seed(static_cast<std::uint64_t>(config.seed), "synthetic", index));
  Problem problem;
  World world = draw_world(config, random, problem.graph);
  const std::vector<Statement> statements = tell_world(world, config, random);
  problem.id = concat(config.split, "-", config.seed, "-", index);
  problem.steps = world.steps;
  problem.distractors = static_cast<std::int64_t>(world.quantities.size()) - world.needed();

  std::int64_t since_needed = -1;  // tokens behind the first needed statement, once it has come
  for (const Statement& statement : statements) {
    if (!problem.prompt.empty()) problem.prompt += ' ';
    problem.prompt += statement.text;
    problem.tokens += statement.tokens;
    if (since_needed >= 0) {
      since_needed += statement.tokens;
    } else if (statement.needed) {
      since_needed = 0;
    }
  }
  if (config.form == "prose") return problem;

  problem.distance = since_needed;
  for (const synthetic::Chain& chain : world.chains) {
    Problem::Turn turn = ask(world, chain, config, random);
    problem.tokens += count_tokens(turn.question) + count_tokens(turn.solution);
    if (problem.answer.empty()) {
      problem.prompt += turn.question;
      problem.completion = std::move(turn.solution);
      problem.answer = std::to_string(world.target(chain).value);
    } else {
      problem.further.push_back(std::move(turn));
    }
  }
  return problem;
}

OrderedJson to_json(const Problem& problem) {
  constexpr char digits[] = "0123456789abcdef";
  std::string graph(16, '0');
  for (std::size_t i = 0; i < 16; ++i) graph[i] = digits[problem.graph >> (60 - 4 * i) & 15];
  OrderedJson record;
  record["id"] = problem.id;
  if (problem.completion.empty()) {
    record["text"] = problem.prompt;
    record["steps"] = problem.steps;
  } else {
    record["prompt"] = problem.prompt;
    record["completion"] = problem.completion;
    record["answer"] = problem.answer;
    record["steps"] = problem.steps;
    record["distance"] = problem.distance;
  }
  record["distractors"] = problem.distractors;
  record["graph"] = graph;
  return record;
}

std::int64_t count_tokens(std::string_view text) {
  std::int64_t tokens = 0;
  bool in_word = false;
  for (const char c : text) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (letter ? !in_word : !std::isspace(static_cast<unsigned char>(c))) ++tokens;
    in_word = letter;
  }
  return tokens;
}

std::vector<std::string> vocabulary_words() {
  std::set<std::string> words = {"=", "+", "-", "*", "/", ".", ":", "answer", "half", "a", "third"};
  for (char digit = '0'; digit <= '9'; ++digit) words.emplace(1, digit);
  for (const std::string_view name : synthetic::names()) words.emplace(name);
  for (const std::string_view item : synthetic::items()) {
    words.emplace(item);
    words.insert(std::string(item) + "s");
  }
  const auto add = [&](synthetic::Phrasings phrasings) {
    for (const std::string_view phrasing : phrasings) {
      std::size_t begin = 0;
      while (begin < phrasing.size()) {
        const std::size_t end = std::min(phrasing.find(' ', begin), phrasing.size());
        const std::string_view word = phrasing.substr(begin, end - begin);
        if (!std::isupper(static_cast<unsigned char>(word[0]))) words.emplace(word);
        begin = end + 1;
      }
    }
  };
  for (int relation = 0; relation < synthetic::relation_count; ++relation)
    add(synthetic::phrasings(static_cast<synthetic::Relation>(relation)));
  add(synthetic::question_phrasings());
  return {words.begin(), words.end()};
}

}  // namespace molt
