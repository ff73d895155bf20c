// What the generator of reasoning problems is asked for. The defaults are the task of the tiny teacher.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "base/config.h"

namespace molt {

struct SyntheticConfig {
  std::int64_t seed = 0;
  std::string split = "train";  // train, test, all
  std::string form = "traces";  // traces, prose

  std::int64_t steps_min = 2;
  std::int64_t steps_max = 5;
  std::vector<double> steps_weights;  // empty: uniform

  std::int64_t distractors_min = 0;
  std::int64_t distractors_max = 3;
  std::int64_t distractor_tokens = 0;      // > 0 replaces the two above
  std::int64_t distractor_tokens_min = 0;  // > 0: of a range that is drawn from log-uniformly
  std::int64_t items = 1;
  std::int64_t names = 48;
  bool equations = false;
  std::int64_t questions = 1;  // of one text, each about quantities of its own

  std::int64_t numbers_max = 99;
  std::int64_t operands_max = 20;
  std::int64_t phrasings = 6;

  void visit(ConfigVisitor& v);
  // UserError ("recipe.yaml: data.problems.steps_max: found 1, expected …") unless every field is within its range.
  void check(const std::string& place = "synthetic") const;
};

}  // namespace molt
