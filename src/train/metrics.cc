#include "train/metrics.h"

#include <c10/core/CachingDeviceAllocator.h>
#include <unistd.h>

#include <ctime>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/counted.h"
#include "base/error.h"
#include "base/log.h"

namespace molt {

namespace run_log {

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts = {};
  gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

// The numbers of a line of metrics, as "train/loss" or "train/gradient_norms/layers.7".
void add_scalars(const OrderedJson& line, const std::string& prefix, Figures& scalars) {
  for (const auto& [key, value] : line.items()) {
    if (value.is_object()) add_scalars(value, concat(prefix, key, "/"), scalars);
    if (value.is_number() && key != "step") scalars[prefix + key] = value.get<double>();
  }
}

double per_second(double amount, double seconds) {
  return seconds > 0 ? amount / seconds : 0;
}

}  // namespace run_log

Json IntervalSums::to_json() const {
  return {{"steps", steps}, {"tokens", tokens},   {"skipped", skipped},
          {"loss", loss},   {"weight", weight},   {"gradient_norm", gradient_norm},
          {"flops", flops}, {"seconds", seconds}, {"sums", sums}};
}

IntervalSums IntervalSums::from_json(const Json& value, const std::string& place) {
  IntervalSums result;
  result.steps = get<std::int64_t>(value, "steps", place);
  result.tokens = get<std::int64_t>(value, "tokens", place);
  result.skipped = get<std::int64_t>(value, "skipped", place);
  result.loss = get<double>(value, "loss", place);
  result.weight = get<double>(value, "weight", place);
  result.gradient_norm = get<double>(value, "gradient_norm", place);
  result.flops = get<double>(value, "flops", place);
  result.seconds = get<double>(value, "seconds", place);
  const Json sums = value.value("sums", Json::object());
  for (const auto& [name, unused] : sums.items()) result.sums[name] = get<double>(sums, name, place + ": sums");
  return result;
}

RunLog::RunLog(const fs::path& run, std::int64_t step, bool tensorboard) {
  const fs::path metrics = run / "metrics.jsonl";
  if (fs::exists(metrics)) cut(metrics, step);
  metrics_ = std::make_unique<LineWriter>(metrics);
  events_ = std::make_unique<LineWriter>(run / "events.jsonl");
  if (tensorboard) tensorboard_ = std::make_unique<TensorBoardFile>(run / "tensorboard", step + 1);
}

// A line that cannot be read stays between readable ones: it is a record, and nothing of a run depends on it but what an
// evaluation measured.
void RunLog::cut(const fs::path& path, std::int64_t step) {
  const std::string text = read_file(path);
  std::size_t kept = 0, begin = 0;
  std::vector<std::string> damaged;
  for (std::int64_t number = 1; begin < text.size(); ++number) {
    const std::size_t end = text.find('\n', begin);
    if (end == std::string::npos) break;  // torn by a kill
    const std::string_view line = std::string_view(text).substr(begin, end - begin);
    begin = end + 1;
    try {
      if (!note(line, step, concat(path.string(), ":", number))) break;
      kept = begin;
    } catch (const UserError& error) {
      damaged.emplace_back(error.what());
    }
  }
  if (!damaged.empty()) {
    const std::size_t others = damaged.size() - 1;
    log_warning(concat(damaged[0], others > 0 ? "; so with " + counted(others, "further line") : "",
                       "; the run goes on all the same: metrics are a record of it, not its state"));
  }
  if (kept == text.size()) return;
  std::error_code error;
  fs::resize_file(path, kept, error);
  require(!error, path.string(), ": cannot cut the lines after step ", step, ": ", error.message());
}

bool RunLog::note(std::string_view text, std::int64_t last_step, const std::string& place) {
  const Json line = parse_json(text, place);
  const auto step = get<std::int64_t>(line, "step", place);
  if (step > last_step) return false;
  if (!line.contains("evaluation")) return true;
  const Json figures = line["evaluation"];
  Figures evaluation;
  for (const auto& [name, value] : figures.items()) {
    // What is not finite was written as null.
    evaluation[name] =
        value.is_null() ? std::numeric_limits<double>::quiet_NaN() : get<double>(figures, name, place + ": evaluation");
  }
  evaluated_step_ = step;
  last_evaluation_ = std::move(evaluation);
  return true;
}

double RunLog::interval(const IntervalSums& sums, const Totals& totals, const Figures& layer_norms) {
  const double steps = static_cast<double>(std::max<std::int64_t>(sums.steps - sums.skipped, 1));
  const auto room = static_cast<double>(sums.steps * totals.step_tokens);
  OrderedJson line = {{"step", totals.step}, {"tokens", totals.tokens}};
  line["fill"] = room > 0 ? static_cast<double>(sums.tokens) / room : 0;
  line["loss"] = sums.mean_loss();
  for (const auto& [name, sum] : sums.sums) line[name] = sums.weight > 0 ? sum / sums.weight : 0;
  line["gradient_norm"] = sums.gradient_norm / steps;
  line["learning_rate"] = totals.learning_rate;
  line["tokens_per_second"] = run_log::per_second(static_cast<double>(sums.tokens), sums.seconds);
  const double flops_per_second = run_log::per_second(sums.flops, sums.seconds);
  const double mfu = totals.peak_flops > 0 ? flops_per_second / totals.peak_flops : 0;
  line["flops_per_second"] = flops_per_second;
  if (mfu > 0) line["mfu"] = mfu;
  line["memory"] = totals.memory;
  line["seconds"] = totals.seconds;
  if (sums.skipped > 0) line["skipped"] = sums.skipped;
  if (!layer_norms.empty()) line["gradient_norms"] = layer_norms;
  write(line, totals.step, "train/");
  return mfu;
}

void RunLog::evaluation(std::int64_t step, const Figures& figures) {
  write({{"step", step}, {"evaluation", figures}}, step, "");
  evaluated_step_ = step;
  last_evaluation_ = figures;
}

void RunLog::write(const OrderedJson& line, std::int64_t step, const std::string& prefix) {
  metrics_->append(to_line(line));
  if (!tensorboard_) return;
  Figures scalars;
  run_log::add_scalars(line, prefix, scalars);
  tensorboard_->scalars(step, scalars);
}

void RunLog::event(const std::string& name, const OrderedJson& details) {
  OrderedJson line = {{"time", run_log::utc_now()}, {"event", name}};
  line.update(details);
  events_->append(to_line(line));
}

std::int64_t memory_in_use(at::Device device) {
  if (device.is_cpu()) {
    std::ifstream statm("/proc/self/statm");
    std::int64_t total = 0, resident = 0;
    statm >> total >> resident;
    return resident * sysconf(_SC_PAGESIZE);
  }
  constexpr auto all = static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  const auto index = device.has_index() ? device.index() : c10::DeviceIndex{0};
  return c10::getDeviceAllocator(device.type())->getDeviceStats(index).allocated_bytes[all].peak;
}

}  // namespace molt
