#include "distill/costs.h"

#include <algorithm>
#include <cmath>

#include "base/counted.h"
#include "base/error.h"
#include "model/mixers/attention/attention.h"

namespace molt {
namespace costs {

// "layers.12.mlp.down.weight" as {"layers.*.mlp.down.weight", 12}; -1 for what is no layer's.
std::pair<std::string, std::int64_t> without_layer(const std::string& name) {
  constexpr std::string_view prefix = "layers.";
  if (!name.starts_with(prefix)) return {name, -1};
  const std::size_t end = name.find('.', prefix.size());
  return {concat(prefix, "*", name.substr(end)), std::stoll(name.substr(prefix.size(), end - prefix.size()))};
}

std::string part_of(const std::string& name, const Model& model) {
  const auto [pattern, layer] = without_layer(name);
  if (pattern.find("norm.weight") != std::string::npos && pattern.find(".mixers.") == std::string::npos) return "norms";
  if (layer < 0) return name.substr(0, name.find('.'));
  if (pattern.starts_with("layers.*.mlp.")) return "mlp";
  return model.blocks[static_cast<std::size_t>(layer)].mixer().config().type();
}

constexpr std::int64_t synthetic_problem = 128;

// Half the sample that a token is in, on average over the tokens.
double context(const std::vector<std::int64_t>& lengths, std::int64_t longest) {
  double pairs = 0, tokens = 0;
  for (const std::int64_t length : lengths) {
    const auto kept = static_cast<double>(std::min(length, longest));
    pairs += kept * kept / 2;
    tokens += kept;
  }
  return tokens > 0 ? pairs / tokens : static_cast<double>(longest) / 2;
}

}  // namespace costs

double parameter_count(Model& model) {
  double total = 0;
  for (const Parameter& parameter : model.parameters()) total += static_cast<double>(parameter.value.numel());
  return total;
}

double training_tokens(const LoopConfig& loop) {
  if (loop.tokens > 0) return static_cast<double>(loop.tokens);
  return static_cast<double>(loop.steps) * static_cast<double>(loop.micro_batches) * static_cast<double>(loop.micro_batch_tokens);
}

std::int64_t mean_context(const DataConfig& data, std::int64_t micro_batch_tokens) {
  const std::int64_t longest = data.max_length > 0 ? std::min(data.max_length, micro_batch_tokens) : micro_batch_tokens;
  double sum = 0, weights = 0;
  const auto add = [&](const std::string& path, bool synthetic, double weight) {
    sum += weight * costs::context(synthetic ? std::vector{costs::synthetic_problem} : first_lengths(path), longest);
    weights += weight;
  };
  if (data.blend.empty()) add(data.path, data.synthetic.has_value(), 1);
  for (const auto& [name, part] : data.blend) add(part.path, part.synthetic.has_value(), part.weight);
  return std::max<std::int64_t>(1, static_cast<std::int64_t>(sum / weights));
}

std::vector<ParameterShape> parameter_shapes(Model& model) {
  std::vector<ParameterShape> shapes;
  for (const Parameter& parameter : model.parameters()) {
    const std::string name = costs::without_layer(parameter.name).first;
    const auto sizes = parameter.value.sizes().vec();
    auto found = std::find_if(shapes.begin(), shapes.end(),
                              [&](const ParameterShape& row) { return row.name == name && row.shape == sizes; });
    if (found == shapes.end()) found = shapes.insert(shapes.end(), {name, sizes, 0});
    ++found->count;
  }
  return shapes;
}

ModelCosts model_costs(const ModelConfig& config, at::ScalarType dtype, std::int64_t context) {
  Model model(config);
  model.to(at::kCPU, dtype);  // the tensors stay on the meta device
  ModelCosts result;
  result.config = model.config();
  result.context = context;
  result.token_flops = model.flops(context);
  for (const Parameter& parameter : model.parameters()) {
    const auto values = static_cast<double>(parameter.value.numel());
    result.parts[costs::part_of(parameter.name, model)] += values;
    result.parameters += values;
    result.weight_bytes += static_cast<double>(parameter.value.nbytes());
  }
  result.read_weight_bytes = result.weight_bytes;
  if (!config.tied_embeddings) result.read_weight_bytes -= static_cast<double>(model.embedding.nbytes());
  for (const Block& block : model.blocks) {
    const auto* attention = dynamic_cast<const AttentionConfig*>(&block.mixer().config());
    const std::int64_t seen = attention && attention->sliding() ? std::min(context, attention->window) : context;
    for (const CacheEntry& entry : block.mixer().cache_spec()) {
      const auto bytes = static_cast<double>(entry.bytes());
      if (entry.per == CacheEntry::Per::sequence) {
        result.state_bytes += bytes;
      } else {
        result.cache_token_bytes += bytes;
        result.read_cache_bytes += bytes * static_cast<double>(seen);
      }
    }
  }
  return result;
}

std::int64_t largest_batch(const ModelCosts& costs, const Hardware& hardware) {
  const double left = hardware.memory - costs.weight_bytes;
  constexpr double most = 1e15;  // of a model that keeps nothing
  return left <= 0 ? 0 : static_cast<std::int64_t>(std::min(most, std::floor(left / std::max(1.0, costs.sequence_bytes()))));
}

DecodeCosts decode_costs(const ModelCosts& costs, const Hardware& hardware, std::int64_t batch) {
  const auto sequences = static_cast<double>(batch);
  const std::pair<const char*, double> seconds[] = {
      {"weights", costs.read_weight_bytes / hardware.bandwidth},
      {"cache", sequences * costs.read_cache_bytes / hardware.bandwidth},
      {"states", sequences * 2 * costs.state_bytes / hardware.bandwidth},
      {"products", sequences * costs.token_flops / hardware.flops},
  };
  const auto* reads = std::max_element(seconds, seconds + 3, [](const auto& a, const auto& b) { return a.second < b.second; });
  const double reading = seconds[0].second + seconds[1].second + seconds[2].second, multiplying = seconds[3].second;
  return {batch, sequences / std::max(reading, multiplying), multiplying > reading ? "products" : reads->first};
}

ModelConfig with_mamba_layers(const ModelConfig& config, std::int64_t mamba_layers, const TargetMixerConfig& target,
                              const std::string& place) {
  const std::vector<std::int64_t> open = attention_layers(config);
  const auto present = std::count_if(config.blocks.begin(), config.blocks.end(), [&](const BlockConfig& block) {
    return !block.identity && block.mixer().type() == target.type;
  });
  require(mamba_layers >= present && mamba_layers <= present + std::ssize(open), place, ": found ", mamba_layers, ", expected ",
          present, " to ", present + std::ssize(open), ", of ", counted(config.num_layers(), "layer"));
  return converted_config(config, {open.end() - (mamba_layers - present), open.end()}, target, place);
}

}  // namespace molt
