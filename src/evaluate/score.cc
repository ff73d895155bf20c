#include "evaluate/score.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/text_table.h"
#include "evaluate/answer/answer.h"

namespace molt {

void Score::add(double value) {
  ++items_;
  sum_ += value;
  squares_ += value * value;
}

double Score::standard_error() const {
  if (items_ == 0) return 0;
  const auto n = static_cast<double>(items_);
  return std::sqrt(std::max(0.0, squares_ / n - accuracy() * accuracy()) / n);
}

std::string score_text(const OrderedJson& score, const std::string& between) {
  const double error = score.value("standard_error", 0.0);
  if (!score.contains("perplexity")) return concat(fixed_text(score.value("accuracy", 0.0), 3), between, fixed_text(error, 3));
  // The error is that of the loss, whose exponential the perplexity is.
  const double perplexity = score["perplexity"].get<double>();
  return concat("perplexity ", fixed_text(perplexity, 3), between, fixed_text(perplexity * error, 3));
}

double pass_at(std::int64_t n, std::int64_t c, std::int64_t k) {
  double none = 1;
  for (std::int64_t i = 0; i < k; ++i)
    none *= static_cast<double>(std::max<std::int64_t>(n - c - i, 0)) / static_cast<double>(n - i);
  return 1 - none;
}

namespace scoring {

bool majority_is_right(const JudgedSample* begin, const JudgedSample* end) {
  struct Votes {
    const JudgedSample* first;
    std::int64_t count = 0;
  };
  std::vector<Votes> votes;
  for (const JudgedSample* sample = begin; sample != end; ++sample) {
    if (sample->extracted.empty()) continue;
    const auto same = std::find_if(votes.begin(), votes.end(),
                                   [&](const Votes& vote) { return answers_equal(vote.first->extracted, sample->extracted); });
    (same == votes.end() ? votes.emplace_back(Votes{sample}) : *same).count++;
  }
  const auto most =
      std::max_element(votes.begin(), votes.end(), [](const Votes& a, const Votes& b) { return a.count < b.count; });
  return most != votes.end() && most->first->correct;
}

OrderedJson describe(const Score& score) {
  return {{"accuracy", score.accuracy()}, {"standard_error", score.standard_error()}, {"items", score.items()}};
}

}  // namespace scoring

double majority_at(const std::vector<JudgedSample>& samples, std::int64_t k) {
  const std::int64_t groups = std::ssize(samples) / k;
  std::int64_t right = 0;
  for (std::int64_t i = 0; i < groups; ++i) {
    const JudgedSample* begin = samples.data() + i * k;
    right += scoring::majority_is_right(begin, begin + k);
  }
  return groups ? static_cast<double>(right) / static_cast<double>(groups) : 0;
}

void add_item(TaskScore& score, const TaskItem& item, const std::vector<JudgedSample>& samples) {
  if (samples.empty()) return;
  const auto n = std::ssize(samples);
  const auto right = std::count_if(samples.begin(), samples.end(), [](const JudgedSample& sample) { return sample.correct; });
  const double mean = static_cast<double>(right) / static_cast<double>(n);
  score.samples += n;
  score.correct += right;
  score.score.add(mean);
  for (const auto& [name, value] : item.groups) score.groups[name][value].add(mean);
  if (n == 1) return;
  const auto add = [&](std::int64_t k) {
    score.pass[k].add(pass_at(n, right, k));
    score.majority[k].add(majority_at(samples, k));
  };
  for (std::int64_t k = 1; k < n; k *= 2) add(k);
  add(n);
}

OrderedJson TaskScore::to_json() const {
  OrderedJson json = scoring::describe(score);
  json["correct"] = correct;
  if (samples != score.items()) json["samples"] = samples;
  json["task"] = task;
  for (const auto& [name, members] : groups)
    for (const auto& [value, member] : members) json["by_" + name][to_string(value)] = scoring::describe(member);
  for (const auto& [k, member] : pass) json["pass_at"][std::to_string(k)] = scoring::describe(member);
  for (const auto& [k, member] : majority) json["majority_at"][std::to_string(k)] = scoring::describe(member);
  if (generated_tokens) json["generated_tokens"] = generated_tokens;
  return json;
}

}  // namespace molt
