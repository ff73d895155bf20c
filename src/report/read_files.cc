#include "report/read_files.h"

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/log.h"
#include "report/text.h"

namespace molt::report {

namespace file_parts {

constexpr std::size_t most_points = 400;

// The objects of a JSON Lines file. A last line without its end that is no JSON was torn by a kill, or is being written; of
// others that are none, a warning says where they are.
void for_each_line(const fs::path& path, const std::function<void(const Json& line, const std::string& place)>& use) {
  const std::string text = read_file(path);
  std::int64_t number = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = text.find('\n', begin);
    const std::string_view line = std::string_view(text).substr(begin, end == std::string::npos ? end : end - begin);
    const std::string place = concat(path.string(), ":", ++number);
    Json value;
    bool valid = true;
    try {
      value = parse_json(line, place);
    } catch (const UserError& error) {
      valid = false;
      if (end != std::string::npos) log_warning(concat(error.what(), "; the report leaves this line out"));
    }
    if (valid) use(value, place);
    if (end == std::string::npos) return;
    begin = end + 1;
  }
}

// A number that may be missing, or null where it was not finite.
std::optional<double> number(const Json& line, const std::string& key, const std::string& place) {
  const auto member = line.is_object() ? line.find(key) : line.end();
  if (line.is_object() && (member == line.end() || member->is_null())) return std::nullopt;
  return get<double>(line, key, place);
}

// Means of neighbours, so that a figure stays small however long the run was.
std::vector<CurvePoint> thinned(const std::vector<CurvePoint>& points) {
  const std::size_t stride = (points.size() + most_points - 1) / most_points;
  if (stride <= 1) return points;
  std::vector<CurvePoint> result;
  for (std::size_t begin = 0; begin < points.size(); begin += stride) {
    const std::size_t end = std::min(points.size(), begin + stride);
    double sum = 0;
    for (std::size_t i = begin; i < end; ++i) sum += points[i].loss;
    result.push_back({points[end - 1].tokens, sum / static_cast<double>(end - begin)});
  }
  return result;
}

std::string objective_of(const fs::path& run) {
  std::string objective;
  const fs::path path = run / "events.jsonl";
  if (!fs::exists(path)) return "loss";
  for_each_line(path, [&](const Json& line, const std::string& place) {
    if (objective.empty()) objective = get_or<std::string>(line, "objective", "", place);
  });
  return objective.empty() ? "loss" : objective;
}

void add_held_out(Curve& curve, const Json& figures, double tokens, const std::string& place) {
  constexpr std::string_view suffix = ".loss";
  for (const auto& [name, unused] : figures.items()) {
    const std::optional<double> value = number(figures, name, place);
    if (!value || !name.ends_with(suffix)) continue;
    curve.held_out[name.substr(0, name.size() - suffix.size())].push_back({tokens, *value});
  }
}

}  // namespace file_parts

std::string valid_text(const std::string& text) {
  return parse_json(to_line(Json(text)), "a name").get<std::string>();
}

Curve read_curve(const fs::path& run, const std::string& name, double offset) {
  Curve curve;
  curve.name = name;
  curve.objective = file_parts::objective_of(run);
  std::vector<CurvePoint> points;
  double last_step = 0, last_tokens = 0;
  file_parts::for_each_line(run / "metrics.jsonl", [&](const Json& line, const std::string& place) {
    const auto step = get<double>(line, "step", place);
    if (line.contains("evaluation")) {
      // Such a line has no tokens: they follow from those of the line before.
      const Json& figures = line["evaluation"];
      require(figures.is_object(), place, ": evaluation: expected an object");
      if (last_step > 0) file_parts::add_held_out(curve, figures, offset + last_tokens * step / last_step, place);
      return;
    }
    last_step = step;
    last_tokens = get<double>(line, "tokens", place);
    if (const auto loss = file_parts::number(line, "loss", place)) points.push_back({offset + last_tokens, *loss});
  });
  curve.training = file_parts::thinned(points);
  for (auto& [unused, held_out] : curve.held_out) held_out = file_parts::thinned(held_out);
  return curve;
}

namespace file_parts {

void add_curve(LayerRanking& ranking, const Json& entry, std::int64_t layer, const std::string& place) {
  if (!entry.contains("curve")) return;
  CandidateCurve curve{layer, {}};
  for (const Json& point : entry["curve"]) {
    require(point.is_array() && point.size() == 2, place, ": curve: expected pairs of step and loss");
    if (point[0].is_number() && point[1].is_number()) curve.points.emplace_back(point[0], point[1]);
  }
  if (!curve.points.empty()) ranking.curves.push_back(std::move(curve));
}

// In a resolved configuration. One without a word of it is of reverse KL, the default.
std::string divergence_of(const std::string& configuration) {
  const auto says = [&](const char* text) { return configuration.find(text) != std::string::npos; };
  if (says("distillation_loss_mix:\n")) return "mixed divergence";
  for (const char* word : {"forward_kl", "jsd"}) {
    if (says(("distillation_loss_implementation: " + std::string(word)).c_str())) return objective_words(word);
  }
  return objective_words("reverse_kl");
}

std::string measure_of(const LayerRanking& ranking, bool by_accuracy) {
  if (ranking.method == "loo") return by_accuracy ? "accuracy lost (fraction)" : "rise of the loss (nats per token)";
  if (ranking.method == "random" || ranking.method == "uniform" || ranking.method == "list") return "";
  return concat(ranking.divergence, ranking.method == "kl" ? " saved" : " left", " (nats per token)");
}

}  // namespace file_parts

bool is_ranking(const fs::path& file) {
  const Json json = read_json(file);
  return json.is_object() && json.contains("method");
}

LayerRanking read_ranking(const fs::path& file, const std::string& name) {
  const Json json = read_json(file);
  const std::string place = file.string();
  LayerRanking ranking;
  ranking.name = name;
  ranking.method = get<std::string>(json, "method", place);
  ranking.complete = get_or<bool>(json, "complete", false, place);
  require(json.contains("layers") && json["layers"].is_array(), place, ": layers: missing, expected a list");
  bool by_accuracy = false;
  for (std::size_t i = 0; i < json["layers"].size(); ++i) {
    const Json& entry = json["layers"][i];
    const std::string entry_place = concat(place, ": layers[", i, "]");
    const auto score = file_parts::number(entry, "score", entry_place);
    if (!score) continue;
    ranking.layers.push_back({get<std::int64_t>(entry, "layer", entry_place), *score,
                              file_parts::number(entry, "standard_error", entry_place).value_or(0),
                              get_or<std::int64_t>(entry, "round", 0, entry_place)});
    file_parts::add_curve(ranking, entry, ranking.layers.back().layer, entry_place);
    by_accuracy = by_accuracy || entry.contains("accuracy");
  }
  std::sort(ranking.layers.begin(), ranking.layers.end(), [](const LayerFigure& a, const LayerFigure& b) {
    if (a.round != b.round) return a.round > b.round;
    return a.score != b.score ? a.score < b.score : a.layer > b.layer;
  });
  ranking.divergence = file_parts::divergence_of(get_or<std::string>(json, "configuration", "", place));
  ranking.measure = file_parts::measure_of(ranking, by_accuracy);
  if (!json.contains("baseline")) return ranking;
  const Json& baseline = json["baseline"];
  if (ranking.method == "mmr") ranking.baseline = file_parts::number(baseline, "score", place + ": baseline");
  file_parts::add_curve(ranking, baseline, -1, place + ": baseline");
  return ranking;
}

Perplexity read_perplexity(const Json& value, const std::string& place) {
  const auto perplexity = get<double>(value, "perplexity", place);
  return {perplexity, perplexity * get<double>(value, "standard_error", place)};
}

Score read_score(const Json& value, const std::string& place) {
  return {get<double>(value, "accuracy", place), get<double>(value, "standard_error", place),
          get<std::int64_t>(value, "items", place)};
}

std::optional<Sample> read_sample(const fs::path& file, const std::string& task) {
  std::optional<Sample> best;
  file_parts::for_each_line(file, [&](const Json& line, const std::string& place) {
    const auto correct = get<bool>(line, "correct", place);
    const auto prompt = get<std::string>(line, "prompt", place);
    if (best && (best->correct > correct || (best->correct == correct && best->prompt.size() <= prompt.size()))) return;
    best = {task, prompt, get<std::string>(line, "expected", place), get<std::string>(line, "completion", place), correct};
  });
  return best;
}

std::vector<std::pair<std::string, Throughput>> read_throughput(const fs::path& file, std::int64_t number) {
  const Json json = read_json(file);
  require(json.is_array(), file.string(), ": expected the list that molt bench --json prints");
  std::vector<std::pair<std::string, Throughput>> rows;
  for (std::size_t i = 0; i < json.size(); ++i) {
    const std::string place = concat(file.string(), ": [", i, "]");
    const auto model = get<std::string>(json[i], "model", place), work = get<std::string>(json[i], "work", place);
    if (work == "requests") continue;  // has no context to stand under
    require(work == "prefill" || work == "decode", place, ": work: found \"", work, "\", expected \"prefill\" or \"decode\"");
    rows.push_back({model,
                    {.prefill = work == "prefill",
                     .batch = get<std::int64_t>(json[i], "batch", place),
                     .context = get<std::int64_t>(json[i], "context", place),
                     .median = get<double>(json[i], "tokens_per_second", place),
                     .lowest = get<double>(json[i], "lowest", place),
                     .highest = get<double>(json[i], "highest", place),
                     .ratio = get<double>(json[i], "ratio", place),
                     .file = number}});
  }
  return rows;
}

namespace file_parts {

constexpr const char* adapter_file = "adapter_config.json";

bool holds_model(const fs::path& folder) {
  return fs::exists(folder / "config.json") || fs::exists(folder / adapter_file);
}

// config.json of the folder, or of the model that its adapters belong to, which may have moved since.
fs::path configuration_of(const fs::path& folder) {
  const fs::path own = folder / "config.json", adapters = folder / adapter_file;
  if (fs::exists(own) || !fs::exists(adapters)) return own;
  return fs::path(get_or<std::string>(read_json(adapters), "base_model_name_or_path", "", adapters.string())) / "config.json";
}

}  // namespace file_parts

std::vector<std::string> read_layout(const fs::path& folder) {
  if (folder.empty()) return {};
  const fs::path path = file_parts::configuration_of(folder);
  if (!fs::exists(path)) return {};
  const Json json = read_json(path);
  require(json.is_object(), path.string(), ": expected an object");
  if (json.contains("hybrid_block_layout")) return get<std::vector<std::string>>(json, "hybrid_block_layout", path.string());
  const auto layers = get_or<std::int64_t>(json, "num_hidden_layers", 0, path.string());
  constexpr std::int64_t most_layers = 10'000;
  require(layers >= 0 && layers <= most_layers, path.string(), ": num_hidden_layers: found ", layers, ", expected 0 to ",
          most_layers);
  return std::vector<std::string>(static_cast<std::size_t>(layers), "t");
}

fs::path newest_export(const fs::path& run) {
  fs::path newest;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(run / "checkpoints", error)) {
    const std::string name = entry.path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos || !file_parts::holds_model(entry.path() / "export")) continue;
    const fs::path found = entry.path() / "export";
    const auto key = [](const fs::path& path) {
      const std::string number = path.parent_path().filename().string();
      return std::pair(number.size(), number);
    };
    if (newest.empty() || key(found) > key(newest)) newest = found;
  }
  return newest;
}

}  // namespace molt::report
