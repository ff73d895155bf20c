#include "evaluate/sample_file.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace molt {
namespace sample_file_detail {

std::int64_t wanted_samples(const Task& task, const TaskItem& item) {
  return item.choices.empty() ? task.config().samples : 1;
}

std::int64_t total(const Task& task) {
  std::int64_t count = 0;
  for (const TaskItem& item : task.items()) count += wanted_samples(task, item);
  return count;
}

// What decides on a sample; more of them can be added.
std::string settings(const Task& task) {
  TaskConfig config = task.config();
  config.samples = 1;
  return to_yaml(config);
}

}  // namespace sample_file_detail

void keep_identity(const fs::path& folder, const Json& identity) {
  const fs::path path = folder / "evaluation.json";
  fs::create_directories(folder);
  if (!fs::exists(path)) return write_json(path, identity);
  require(read_json(path) == identity, path.string(),
          ": the folder holds results of another model or task, or of other weights or settings; choose another --output");
}

SampleFile::SampleFile(const Task& task, const fs::path& folder, const std::string& identity, const std::string& weights)
    : task_(task), progress_("evaluate " + task.name(), sample_file_detail::total(task), "answers") {
  using namespace sample_file_detail;
  for (const TaskItem& item : task.items()) {
    const bool fresh = samples_.emplace(item.id, static_cast<std::size_t>(wanted_samples(task, item))).second;
    require(fresh, "task ", task.name(), ": found the id \"", item.id, "\" twice, expected one of each");
  }
  if (!folder.empty()) {
    Json about = {{"task", task.name()}, {"model", identity}, {"items", task.items().size()}, {"settings", settings(task)}};
    if (!weights.empty()) about["weights"] = weights;
    keep_identity(folder, about);
    const fs::path path = folder / "samples.jsonl";
    writer_ = std::make_unique<LineWriter>(path);
    read(path);
  }
  progress_.update(done_);
}

void SampleFile::read(const fs::path& path) {
  LineReader reader(path);
  for (std::string_view line; reader.next(line);) {
    const Json sample = parse_json(line, reader.place());
    const auto id = get<std::string>(sample, "id", reader.place());
    const auto number = get_or<std::int64_t>(sample, "sample", 0, reader.place());
    const auto found = samples_.find(id);
    if (found == samples_.end() || number < 0 || number >= std::ssize(found->second)) continue;
    if (found->second[static_cast<std::size_t>(number)]) continue;
    take(id, number, {get<std::string>(sample, "extracted", reader.place()), get<bool>(sample, "correct", reader.place())},
         get_or<std::int64_t>(sample, "tokens", 0, reader.place()));
  }
}

std::int64_t SampleFile::wanted(const TaskItem& item) const {
  return sample_file_detail::wanted_samples(task_, item);
}

bool SampleFile::has(const TaskItem& item, std::int64_t sample) const {
  return samples_.at(item.id)[static_cast<std::size_t>(sample)].has_value();
}

void SampleFile::take(const std::string& id, std::int64_t sample, JudgedSample judged, std::int64_t tokens) {
  ++done_;
  correct_ += judged.correct;
  tokens_ += tokens;
  samples_.at(id)[static_cast<std::size_t>(sample)] = std::move(judged);
}

void SampleFile::add(const TaskItem& item, std::int64_t sample, JudgedSample judged, const OrderedJson& fields) {
  if (writer_) {
    OrderedJson line{{"id", item.id}};
    if (wanted(item) > 1) line["sample"] = sample;
    line["expected"] = item.expected;
    line["extracted"] = judged.extracted;
    line["correct"] = judged.correct;
    line.update(fields);
    for (const auto& [name, value] : item.groups) std::visit([&, key = name](const auto& group) { line[key] = group; }, value);
    writer_->append(to_line(line));
  }
  take(item.id, sample, std::move(judged), fields.value("tokens", std::int64_t{0}));
  progress_.update(done_,
                   concat("accuracy ", std::round(1000.0 * static_cast<double>(correct_) / static_cast<double>(done_)) / 1000));
}

TaskScore SampleFile::finish() {
  progress_.finish();
  TaskScore score;
  score.task = task_.name();
  score.generated_tokens = tokens_;
  for (const TaskItem& item : task_.items()) {
    std::vector<JudgedSample> judged;
    for (const auto& sample : samples_.at(item.id)) {
      MOLT_CHECK(sample.has_value(), "a sample of ", item.id, " is missing");
      judged.push_back(*sample);
    }
    add_item(score, item, judged);
  }
  return score;
}

}  // namespace molt
