#include "distill/rank.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <iomanip>

#include "base/error.h"
#include "base/random.h"
#include "distill/ranking_file.h"
#include "train/resolved_config.h"

namespace molt {

void RankConfig::visit(ConfigVisitor& v) {
  v.choice("method", method, {"loo", "mmr"},
           "loo: leave each layer out; mmr: let a Mamba mixer take each layer's place and train it");
  visit_settings(v);
}

void RankConfig::visit_settings(ConfigVisitor& v) {
  v.field("data", data, "Where the batches come from");
  v.field("held_out_tokens", held_out_tokens, "The data's first tokens, on which scores are measured");
  v.field("micro_batch_tokens", micro_batch_tokens, "Tokens of one pass");
  v.field("layers", layers, "Candidates; empty: every attention layer");
  v.field("seed", seed, "Order of the data, and the new weights of mmr");
  if (method == "loo") {
    v.choice("scope", scope, {"layer", "mixer"}, "layer: hidden states pass all of it unchanged; mixer: the MLP stays");
    v.choice("metric", metric, {"loss", "task"}, "loss: rise of the next-token loss; task: accuracy lost on a task");
    if (metric == "task") v.field("task", task, "The task");
  } else {
    v.field("mixer", mixer, "What takes the layer's place, initialised from the teacher's attention");
    v.choice("distillation_loss_implementation", distillation_loss_implementation, {"reverse_kl", "forward_kl"},
             "What trains and what is measured");
    v.field("steps", steps, "Training steps a candidate");
    v.field("micro_batches", micro_batches, "Passes of one step");
    v.field("optimizer", optimizer, "AdamW");
    v.field("schedule", schedule, "The learning rate over the steps");
    v.field("trainable", trainable, "Glob patterns of what trains; {layer} is the candidate's number");
  }
  if (!v.reading()) return;
  const auto at_least = [&](const char* key, std::int64_t value, std::int64_t low) {
    require(value >= low, v.place(), ": ", key, ": found ", value, ", expected a number from ", low, " up");
  };
  at_least("held_out_tokens", held_out_tokens, 2);
  at_least("micro_batch_tokens", micro_batch_tokens, 2);
  at_least("steps", steps, 1);
  at_least("micro_batches", micro_batches, 1);
}

namespace ranking_parts {

std::string text(RankConfig config) {
  return to_yaml(ConfigVisitor::Visit([&](ConfigVisitor& v) { config.visit(v); }));
}

void check_layers(const std::vector<std::int64_t>& layers, const ModelConfig& model, const std::string& place) {
  const std::vector<std::int64_t> known = attention_layers(model);
  for (const std::int64_t layer : layers) {
    require(layer >= 0 && layer < model.num_layers(), place, ": layers: found ", layer, ", expected 0 to ",
            model.num_layers() - 1);
    require(std::count(layers.begin(), layers.end(), layer) == 1, place, ": layers: ", layer, " is named twice");
    require(std::binary_search(known.begin(), known.end(), layer), place, ": layers: layer ", layer,
            " is no attention layer, expected one of them");
  }
  require(!known.empty(), place, ": the model has no attention layer left to rank");
}

Ranking read(const OrderedJson& json, const std::string& place) {
  Ranking ranking;
  require(json.contains("layers") && json["layers"].is_array(), place, ": found no \"layers\", expected a ranking");
  for (const auto& entry : json["layers"]) {
    const Json layer = entry;
    ranking.layers.push_back({get<std::int64_t>(layer, "layer", place), get<double>(layer, "score", place),
                              get<double>(layer, "standard_error", place)});
  }
  std::vector<LayerFigure> sorted = ranking.layers;
  std::sort(sorted.begin(), sorted.end(), [](const LayerFigure& a, const LayerFigure& b) {
    return a.score != b.score ? a.score < b.score : a.layer > b.layer;
  });
  for (const LayerFigure& figure : sorted) ranking.order.push_back(figure.layer);
  return ranking;
}

}  // namespace ranking_parts

RankingFile::RankingFile(fs::path path, const RankConfig& config, const std::string& model, const std::string& teacher)
    : path_(std::move(path)) {
  const std::string configuration = ranking_parts::text(config), place = path_.string();
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
  for (const ChangedKey& key : changed_keys(get<std::string>(plain, "configuration", place), configuration)) {
    fail(place, ": holds a ranking with another configuration: ", key.path, " (there ",
         key.before.empty() ? "absent" : key.before, ", now ", key.after.empty() ? "absent" : key.after,
         "); restore it to continue, or choose another file");
  }
  for (const auto& [name, print] : {std::pair("model", model), std::pair("teacher", teacher)}) {
    require(get<std::string>(plain, name, place) == print, place, ": holds a ranking of another ", name, "; choose another file");
  }
  ranking_parts::read(found, place);
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

void RankingFile::finish() {
  json_["complete"] = true;
  write();
}

Ranking RankingFile::ranking() const {
  return ranking_parts::read(json_, path_.string());
}

void RankingFile::write() {
  json_["ranking"] = ranking().order;
  if (path_.has_parent_path()) fs::create_directories(path_.parent_path());
  write_json(path_, json_);
}

Ranking rank_layers(const RankConfig& config, const RankInputs& inputs, const fs::path& path) {
  require(config.method == "loo" || inputs.teacher, inputs.place, ": mmr needs a teacher");
  ranking_parts::check_layers(config.layers, inputs.model.config(), inputs.place);
  const std::vector<std::int64_t> layers = config.layers.empty() ? attention_layers(inputs.model.config()) : config.layers;
  RankingFile file(path, config, model_fingerprint(inputs.model), inputs.teacher ? model_fingerprint(*inputs.teacher) : "");
  if (!file.complete()) {
    (config.method == "loo" ? rank_by_leaving_out : rank_by_replacing)(config, inputs, layers, file);
    file.finish();
  }
  return file.ranking();
}

Ranking read_ranking(const fs::path& path) {
  const OrderedJson json = parse_ordered_json(read_file(path), path.string());
  require(json.is_object() && json.value("complete", false), path.string(), ": found no finished ranking");
  return ranking_parts::read(json, path.string());
}

std::string model_fingerprint(const Model& model) {
  constexpr std::int64_t samples = 4096;
  std::uint64_t hash = 0;
  for (const Parameter& parameter : model.share()->parameters()) {
    hash = derive_seed(hash, concat(parameter.name, parameter.value.scalar_type(), parameter.value.sizes()));
    const at::Tensor flat = parameter.value.flatten();
    const std::int64_t stride = std::max<std::int64_t>(1, flat.numel() / samples);
    const at::Tensor drawn = flat.slice(0, 0, flat.numel(), stride).contiguous().cpu();
    hash = derive_seed(hash, {static_cast<const char*>(drawn.const_data_ptr()), drawn.nbytes()});
  }
  std::ostringstream digits;
  digits << std::hex << std::setw(16) << std::setfill('0') << hash;
  return digits.str();
}

}  // namespace molt
