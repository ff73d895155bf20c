// How far two rankings agree.
#pragma once
#include <cstdint>
#include <optional>

#include "report/collect.h"

namespace molt::report {

// Of the layers that both rank, by their places among these; no two share a place.
struct RankCorrelation {
  std::int64_t layers = 0;
  double spearman = 0;          // rho = 1 - 6 sum of squared differences of places / (n (n^2 - 1))
  double kendall = 0;           // tau = (pairs in the same order - pairs in the other) / (n (n - 1) / 2)
  std::int64_t first_half = 0;  // how many layers are in the first n / 2 (rounded down) of both
};

// Nothing where fewer than three layers are in both.
std::optional<RankCorrelation> rank_correlation(const LayerRanking& a, const LayerRanking& b);

}  // namespace molt::report
