#include "data/synthetic/config.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "data/synthetic/phrases.h"
#include "data/synthetic/world.h"

namespace molt {

void SyntheticConfig::visit(ConfigVisitor& v) {
  v.field("seed", seed, "Problem i depends on the seed and i alone");
  v.choice("split", split, {"train", "test", "all"}, "Which problems: no graph of test occurs in train, under any names");
  v.choice("form", form, {"traces", "prose"},
           "traces: prompt and worked completion; prose: the statements alone, nothing asked or solved");
  v.field("steps_min", steps_min, "Fewest dependent steps to the answer, 1 to 12");
  v.field("steps_max", steps_max, "Most dependent steps to the answer, 1 to 12");
  v.field("steps_weights", steps_weights,
          "Relative frequency of each number of steps from steps_min to steps_max; empty: all alike");
  v.field("distractors_min", distractors_min, "Fewest statements that the answer does not need");
  v.field("distractors_max", distractors_max, "Most statements that the answer does not need");
  v.field("distractor_tokens", distractor_tokens, "Tokens of such statements instead, at most 4096; 0: the range above");
  v.field("distractor_tokens_min", distractor_tokens_min,
          "Fewest of these tokens: so many are drawn up to distractor_tokens, each doubling alike; 0: distractor_tokens always");
  v.field("items", items,
          "Kinds of things that distractors speak of, the asked one included; more are used once all names have one");
  v.field("names", names,
          "Names that a text draws its own from: with few, each has things of several kinds, which a reader must tell apart");
  v.field(
      "equations", equations,
      "Solutions tell each quantity's equation, from the asked one on, before they solve it (\"kim apples = tom + 3 .\"): what "
      "comes next needs one fact of the text, where without them the first step needs the whole chain");
  v.field("questions", questions,
          "Questions that a training text asks and solves one after another, each about facts of its own, at most 96 "
          "of 5 steps and 24 of 12 with all names; a task asks the first");
  v.field("numbers_max", numbers_max, "Largest number in a problem, 9 to 9999; the smallest is 0");
  v.field("operands_max", operands_max, "Largest number that a statement gives outright");
  v.field("phrasings", phrasings, "Phrasings used of each relation and of the question, 1 to 6");
  if (v.reading()) check(v.place());
}

void SyntheticConfig::check(const std::string& place) const {
  const auto within = [&](const char* key, std::int64_t value, std::int64_t low, std::int64_t high) {
    if (value < low || value > high) fail(place, ": ", key, ": found ", value, ", expected a number from ", low, " to ", high);
  };
  const auto one_of = [&](const char* key, const std::string& word, std::initializer_list<const char*> words) {
    if (std::find(words.begin(), words.end(), word) != words.end()) return;
    std::string expected;
    for (const char* known : words) expected += (expected.empty() ? "" : ", ") + std::string(known);
    fail(place, ": ", key, ": found \"", word, "\", expected one of ", expected);
  };
  one_of("split", split, {"train", "test", "all"});
  one_of("form", form, {"traces", "prose"});
  within("steps_min", steps_min, 1, synthetic::most_steps);
  within("steps_max", steps_max, steps_min, synthetic::most_steps);
  within("distractors_min", distractors_min, 0, 500);
  within("distractors_max", distractors_max, distractors_min, 500);
  within("distractor_tokens", distractor_tokens, 0, 4096);
  within("distractor_tokens_min", distractor_tokens_min, 0, distractor_tokens);
  // Quantities of a question are of one kind of thing, and a name has one quantity of a kind.
  within("names", names, synthetic::most_needed(steps_max), std::ssize(synthetic::names()));
  within("questions", questions, 1, std::ssize(synthetic::items()) * (names / synthetic::most_needed(steps_max)));
  within("items", items, 1, static_cast<std::int64_t>(synthetic::items().size()));
  within("numbers_max", numbers_max, 9, 9999);
  within("operands_max", operands_max, 1, numbers_max);
  within("phrasings", phrasings, 1, synthetic::phrasings_per_relation);
  if (steps_weights.empty()) return;
  const std::size_t expected = static_cast<std::size_t>(steps_max - steps_min + 1);
  if (steps_weights.size() != expected) {
    fail(place, ": steps_weights: found ", steps_weights.size(), " numbers, expected ", expected, ", one for each of ", steps_min,
         " to ", steps_max, " steps");
  }
  double sum = 0;
  for (const double weight : steps_weights) {
    if (!(weight >= 0) || !std::isfinite(weight)) fail(place, ": steps_weights: found ", weight, ", expected numbers from 0 up");
    sum += weight;
  }
  if (!(sum > 0)) fail(place, ": steps_weights: found only zeros, expected a positive number");
}

}  // namespace molt
