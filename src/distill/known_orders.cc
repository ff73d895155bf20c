#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/random.h"
#include "distill/ranking_file.h"

namespace molt {

namespace known_orders {

using Layers = std::vector<std::int64_t>;

// Binary digits of k reversed behind the point: 1/2, 1/4, 3/4, 1/8, 5/8, …
double van_der_corput(std::int64_t k) {
  double value = 0;
  for (double digit = 0.5; k > 0; k /= 2, digit /= 2) value += digit * static_cast<double>(k % 2);
  return value;
}

Layers evenly_spaced(const Layers& layers, std::int64_t count) {
  const auto size = static_cast<std::int64_t>(layers.size());
  const std::int64_t first = std::min(count, size);
  Layers order;
  const auto take = [&](std::int64_t index) {
    const std::int64_t layer = layers[static_cast<std::size_t>(index)];
    if (std::find(order.begin(), order.end(), layer) == order.end()) order.push_back(layer);
  };
  for (std::int64_t i = 0; i < first; ++i) take((2 * i + 1) * size / (2 * first));
  for (std::int64_t k = 1; std::ssize(order) < size; ++k) {
    take(static_cast<std::int64_t>(van_der_corput(k) * static_cast<double>(size)));
  }
  return order;
}

Layers ascending(Layers layers) {
  std::sort(layers.begin(), layers.end());
  return layers;
}

Layers drawn(const Layers& layers, std::uint64_t seed) {
  Layers order = ascending(layers);
  Random(derive_seed(seed, "random ranking")).shuffle(order);
  return order;
}

}  // namespace known_orders

void rank_by_order(const RankConfig& config, const RankInputs& inputs, const std::vector<std::int64_t>& layers,
                   RankingFile& file) {
  using namespace known_orders;
  const Layers order = config.method == "random"    ? drawn(layers, static_cast<std::uint64_t>(config.seed))
                       : config.method == "uniform" ? evenly_spaced(ascending(layers), config.count)
                                                    : layers;
  for (std::size_t place = 0; place < order.size(); ++place) {
    if (file.has(order[place])) continue;
    file.add({{"layer", order[place]},
              {"mixer", inputs.model.config().blocks[static_cast<std::size_t>(order[place])].mixer().type()},
              {"score", static_cast<double>(place)},
              {"standard_error", 0.0}});
  }
}

}  // namespace molt
