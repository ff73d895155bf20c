#include "report/rank_correlation.h"

#include <algorithm>

namespace molt::report {

namespace correlation {

bool holds(const LayerRanking& ranking, std::int64_t layer) {
  return std::any_of(ranking.layers.begin(), ranking.layers.end(),
                     [&](const LayerFigure& figure) { return figure.layer == layer; });
}

// For each layer of `a` that `b` has, in a's order, its place among those in b's.
std::vector<std::int64_t> places(const LayerRanking& a, const LayerRanking& b) {
  std::vector<std::int64_t> in_both;
  for (const LayerFigure& figure : b.layers) {
    if (holds(a, figure.layer)) in_both.push_back(figure.layer);
  }
  std::vector<std::int64_t> result;
  for (const LayerFigure& figure : a.layers) {
    const auto place = std::find(in_both.begin(), in_both.end(), figure.layer);
    if (place != in_both.end()) result.push_back(place - in_both.begin());
  }
  return result;
}

}  // namespace correlation

std::optional<RankCorrelation> rank_correlation(const LayerRanking& a, const LayerRanking& b) {
  const std::vector<std::int64_t> places = correlation::places(a, b);
  const auto count = static_cast<std::int64_t>(places.size());
  if (count < 3) return std::nullopt;
  const auto n = static_cast<double>(count);
  double squares = 0, order = 0;
  RankCorrelation result;
  result.layers = count;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t place = places[static_cast<std::size_t>(i)];
    const auto difference = static_cast<double>(place - i);
    squares += difference * difference;
    for (std::int64_t j = 0; j < i; ++j) order += places[static_cast<std::size_t>(j)] < place ? 1 : -1;
    if (i < count / 2 && place < count / 2) ++result.first_half;
  }
  result.spearman = 1 - 6 * squares / (n * (n * n - 1));
  result.kendall = order / (n * (n - 1) / 2);
  return result;
}

}  // namespace molt::report
