// Scores from judged samples: how often an answer is right, and how often one of k, or the majority of k, is.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/json.h"
#include "evaluate/task.h"

namespace molt {

// A mean over items and its standard error. An item's samples are not independent of one another, so the error is that of the
// items' means (clustered by item): with one sample each it is the binomial one.
class Score {
 public:
  void add(double value);  // an item's mean, in [0, 1]
  std::int64_t items() const { return items_; }
  double accuracy() const { return items_ ? sum_ / static_cast<double>(items_) : 0; }
  double standard_error() const;

 private:
  std::int64_t items_ = 0;
  double sum_ = 0, squares_ = 0;
};

struct JudgedSample {
  std::string extracted;  // "": no answer, and no vote
  bool correct = false;
};

struct TaskScore {
  std::string task;
  Score score;                                                // of single samples: pass@1
  std::int64_t samples = 0, correct = 0;                      // in all
  std::map<std::string, std::map<GroupValue, Score>> groups;  // "steps" -> 3 -> score
  std::map<std::int64_t, Score> pass, majority;  // by k = 1, 2, 4, … and the samples of an item; empty with one sample
  std::int64_t generated_tokens = 0;
  OrderedJson to_json() const;
};

// A score.json in a word, with `between` before the standard error: "0.953 +- 0.019", "perplexity 8.31 +- 0.07".
std::string score_text(const OrderedJson& score, const std::string& between = " +- ");

// 1 - C(n - c, k) / C(n, k): the chance that k of n samples, c of them right, hold a right one (Chen et al. 2021,
// arXiv 2107.03374, equation 1).
double pass_at(std::int64_t n, std::int64_t c, std::int64_t k);

// The share of right votes when the samples vote in groups of k, taken in order; what is left over does not vote. The answer with
// the most samples wins, answers that are equal mathematically counting as one; of several the one that came first.
double majority_at(const std::vector<JudgedSample>& samples, std::int64_t k);

// An item's samples into all figures.
void add_item(TaskScore& score, const TaskItem& item, const std::vector<JudgedSample>& samples);

}  // namespace molt
