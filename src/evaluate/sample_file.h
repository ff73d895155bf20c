// The samples of one evaluation: what is known already, and where new ones go.
#pragma once
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/files.h"
#include "base/json.h"
#include "base/progress.h"
#include "evaluate/score.h"
#include "evaluate/task.h"

namespace molt {

// Keeps `identity` (what decides on an evaluation's results) as folder/evaluation.json. UserError where it says something else.
void keep_identity(const fs::path& folder, const Json& identity);

class SampleFile {
 public:
  // Continues folder/samples.jsonl; an empty folder keeps nothing. They must be of the same task and its settings but for
  // `samples`, the same number of items, `identity` and, if it is not empty, `weights` (keep_identity).
  SampleFile(const Task& task, const fs::path& folder, const std::string& identity, const std::string& weights);

  std::int64_t wanted(const TaskItem& item) const;  // samples of the item
  bool has(const TaskItem& item, std::int64_t sample) const;
  // Takes a judged sample and appends its line, with `fields` ("prompt", "completion", "tokens", …).
  void add(const TaskItem& item, std::int64_t sample, JudgedSample judged, const OrderedJson& fields);
  // Ends the progress line. All wanted samples must be there.
  TaskScore finish();

 private:
  void read(const fs::path& path);
  void take(const std::string& id, std::int64_t sample, JudgedSample judged, std::int64_t tokens);

  const Task& task_;
  std::map<std::string, std::vector<std::optional<JudgedSample>>> samples_;  // by item
  std::unique_ptr<LineWriter> writer_;
  Progress progress_;
  std::int64_t done_ = 0, correct_ = 0, tokens_ = 0;
};

}  // namespace molt
