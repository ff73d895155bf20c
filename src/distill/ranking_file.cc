#include "distill/ranking_file.h"

#include <algorithm>

#include "base/error.h"
#include "train/resolved_config.h"

namespace molt {

namespace ranking_files {

std::string text(RankConfig config) {
  return to_yaml(ConfigVisitor::Visit([&](ConfigVisitor& v) { config.visit(v); }));
}

Ranking read(const OrderedJson& json, const std::string& place) {
  Ranking ranking;
  require(json.contains("layers") && json["layers"].is_array(), place, ": found no \"layers\", expected a ranking");
  for (const auto& entry : json["layers"]) {
    const Json layer = entry;
    ranking.layers.push_back({get<std::int64_t>(layer, "layer", place), get<double>(layer, "score", place),
                              get<double>(layer, "standard_error", place), get_or<std::int64_t>(layer, "round", 0, place)});
  }
  std::vector<LayerFigure> sorted = ranking.layers;
  std::sort(sorted.begin(), sorted.end(), [](const LayerFigure& a, const LayerFigure& b) {
    if (a.round != b.round) return a.round > b.round;
    return a.score != b.score ? a.score < b.score : a.layer > b.layer;
  });
  for (const LayerFigure& figure : sorted) ranking.order.push_back(figure.layer);
  return ranking;
}

}  // namespace ranking_files

RankingFile::RankingFile(fs::path path, const RankConfig& config, const std::string& model, const std::string& teacher)
    : path_(std::move(path)) {
  const std::string configuration = ranking_files::text(config), place = path_.string();
  json_ = {{"method", config.method},
           {"configuration", configuration},
           {"model", model},
           {"teacher", teacher},
           {"complete", false},
           {"layers", OrderedJson::array()},
           {"ranking", OrderedJson::array()}};
  if (!fs::exists(path_)) return;
  const OrderedJson found = parse_ordered_json(read_file(path_), place);
  const Json plain = found;
  const auto before = get<std::string>(plain, "configuration", place);
  for (const ChangedKey& key : changed_keys(before, configuration, place + ": configuration")) {
    fail(place, ": holds a ranking with another configuration: ", key.path, " (there ",
         key.before.empty() ? "absent" : key.before, ", now ", key.after.empty() ? "absent" : key.after,
         "); restore it to continue, or choose another file");
  }
  for (const auto& [name, print] : {std::pair("model", model), std::pair("teacher", teacher)}) {
    require(get<std::string>(plain, name, place) == print, place, ": holds a ranking of another ", name, "; choose another file");
  }
  ranking_files::read(found, place);
  json_ = found;
}

bool RankingFile::has(std::int64_t layer) const {
  const auto& layers = json_["layers"];
  return std::any_of(layers.begin(), layers.end(), [&](const auto& entry) { return entry["layer"] == layer; });
}

void RankingFile::set_baseline(const OrderedJson& figures) {
  json_["baseline"] = figures;
  write();
}

void RankingFile::add(const OrderedJson& figures) {
  json_["layers"].push_back(figures);
  auto& layers = json_["layers"];
  std::sort(layers.begin(), layers.end(), [](const auto& a, const auto& b) { return a["layer"] < b["layer"]; });
  write();
}

namespace ranking_files {

// The round whose pick is not made yet; null: there is none.
const OrderedJson* open_round(const OrderedJson& json) {
  const auto rounds = json.find("rounds");
  return rounds == json.end() || rounds->empty() || rounds->back().contains("picked") ? nullptr : &rounds->back();
}

}  // namespace ranking_files

std::vector<std::int64_t> RankingFile::picked() const {
  std::vector<std::int64_t> layers;
  if (!json_.contains("rounds")) return layers;
  for (const auto& round : json_["rounds"]) {
    if (round.contains("picked")) layers.push_back(round["picked"].get<std::int64_t>());
  }
  return layers;
}

bool RankingFile::tried(std::int64_t layer) const {
  const OrderedJson* round = ranking_files::open_round(json_);
  if (!round) return false;
  const auto& candidates = (*round)["candidates"];
  return std::any_of(candidates.begin(), candidates.end(), [&](const auto& entry) { return entry["layer"] == layer; });
}

void RankingFile::add_to_round(const OrderedJson& figures) {
  if (!ranking_files::open_round(json_)) json_["rounds"].push_back({{"candidates", OrderedJson::array()}});
  json_["rounds"].back()["candidates"].push_back(figures);
  write();
}

std::int64_t RankingFile::pick() {
  MOLT_CHECK(ranking_files::open_round(json_), "no round to pick from");
  OrderedJson& round = json_["rounds"].back();
  const auto& candidates = round["candidates"];
  const auto better = [](const OrderedJson& a, const OrderedJson& b) {
    return a["score"] != b["score"] ? a["score"] > b["score"] : a["layer"] < b["layer"];
  };
  OrderedJson best = *std::min_element(candidates.begin(), candidates.end(), better);
  round["picked"] = best["layer"];
  best["round"] = json_["rounds"].size();
  add(best);
  return best["layer"].get<std::int64_t>();
}

void RankingFile::finish() {
  json_["complete"] = true;
  write();
}

Ranking RankingFile::ranking() const {
  return ranking_files::read(json_, path_.string());
}

std::string RankingFile::identity() const {
  std::string model = json_["model"].get<std::string>(), teacher = json_["teacher"].get<std::string>();
  RankConfig config;
  parse_config(json_["configuration"].get<std::string>(), path_.string(), {}, [&](ConfigVisitor& v) { config.visit(v); });
  return to_yaml(ConfigVisitor::Visit([&](ConfigVisitor& v) {
    v.field("model", model, "");
    v.field("teacher", teacher, "");
    v.field("ranking", config, "");
  }));
}

void RankingFile::write() {
  json_["ranking"] = ranking().order;
  if (path_.has_parent_path()) fs::create_directories(path_.parent_path());
  write_json(path_, json_);
}

Ranking read_ranking(const fs::path& path) {
  const OrderedJson json = parse_ordered_json(read_file(path), path.string());
  require(json.is_object() && json.value("complete", false), path.string(), ": found no finished ranking");
  return ranking_files::read(json, path.string());
}

}  // namespace molt
