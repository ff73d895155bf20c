#include "distill/rank.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <iomanip>

#include "base/error.h"
#include "base/random.h"
#include "distill/ranking_file.h"

namespace molt {

void RankConfig::visit(ConfigVisitor& v) {
  v.choice("method", method, rank_methods(),
           "loo: leave each layer out; mmr: let a Mamba mixer take each layer's place and train it; kl: restore each layer of a "
           "student that is Mamba in all candidates; random, uniform: baselines; list: an order that is known");
  visit_settings(v);
}

void RankConfig::visit_settings(ConfigVisitor& v) {
  if (method == "list") {
    v.field("layers", layers, "Least important first");
    return;
  }
  v.field("layers", layers, "Candidates; empty: every attention layer");
  if (method == "uniform") {
    v.field("count", count, "The first so many are evenly spaced; 0: whatever their number, as evenly as orders can be");
  } else {
    v.field("seed", seed, "Order of the data, and new weights; of random, the order itself");
  }
  if (!measures()) return;
  v.field("data", data, "Where the batches come from");
  v.field("held_out_tokens", held_out_tokens, "The data's first tokens, on which scores are measured");
  v.field("micro_batch_tokens", micro_batch_tokens, "Tokens of one pass");
  if (method == "loo") {
    v.choice("scope", scope, {"layer", "mixer"}, "layer: hidden states pass all of it unchanged; mixer: the MLP stays");
    v.choice("metric", metric, {"loss", "task"}, "loss: rise of the next-token loss; task: accuracy lost on a task");
    if (metric == "task") v.field("task", task, "The task");
  } else {
    visit_training(v);
  }
  if (!v.reading()) return;
  const auto at_least = [&](const char* key, std::int64_t value, std::int64_t low) {
    require(value >= low, v.place(), ": ", key, ": found ", value, ", expected a number from ", low, " up");
  };
  at_least("held_out_tokens", held_out_tokens, 2);
  at_least("micro_batch_tokens", micro_batch_tokens, 2);
  at_least("steps", steps, method == "kl" ? 0 : 1);
  at_least("match_steps", match_steps, 0);
  at_least("student_steps", student_steps, 0);
  at_least("micro_batches", micro_batches, 1);
}

void RankConfig::visit_training(ConfigVisitor& v) {
  v.field("mixer", mixer, "What takes the layer's place, initialised from the teacher's attention");
  divergence.visit(v);
  if (method == "kl") {
    v.field("match_steps", match_steps, "Training steps before that in which each new mixer is drawn to the teacher's attention");
    v.field("student_steps", student_steps, "Training steps of the student in which every candidate is converted");
    v.field("greedy", greedy, "Restore the best layer and rank the others again, until all are restored");
  }
  v.field("steps", steps, "Training steps a candidate; of kl, after its layer is restored (0: it is measured at once)");
  v.field("micro_batches", micro_batches, "Passes of one step");
  v.field("optimizer", optimizer, "AdamW");
  v.field("schedule", schedule, "The learning rate over the steps");
  v.field("trainable", trainable, "Glob patterns of what trains; {layer} is the number of each layer that was converted");
}

const std::vector<std::string>& rank_methods() {
  static const std::vector<std::string> methods = {"loo", "mmr", "kl", "random", "uniform", "list"};
  return methods;
}

namespace ranking_parts {

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

}  // namespace ranking_parts

Ranking rank_layers(const RankConfig& config, const RankInputs& inputs, const fs::path& path) {
  require(!config.distils() || inputs.teacher, inputs.place, ": ", config.method, " needs a teacher");
  require(config.method != "list" || !config.layers.empty(), inputs.place, ": layers: missing, expected the order");
  ranking_parts::check_layers(config.layers, inputs.model.config(), inputs.place);
  const std::vector<std::int64_t> layers = config.layers.empty() ? attention_layers(inputs.model.config()) : config.layers;
  RankingFile file(path, config, model_fingerprint(inputs.model), inputs.teacher ? model_fingerprint(*inputs.teacher) : "");
  if (!file.complete()) {
    const auto rank = config.method == "loo"   ? rank_by_leaving_out
                      : config.method == "mmr" ? rank_by_replacing
                      : config.method == "kl"  ? rank_by_restoring
                                               : rank_by_order;
    rank(config, inputs, layers, file);
    file.finish();
  }
  return file.ranking();
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
