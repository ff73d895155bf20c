// Rankings side by side, as tables.
#pragma once
#include "report/collect.h"
#include "report/tables.h"

namespace molt::report {

// "mmr-4 (mmr)": the ranking's name and method.
std::string ranking_words(const LayerRanking& ranking);

// A row for each layer, by number: its place in every ranking, and the figure that gave it.
Table places_table(const Collection& collection);
// A row for each two rankings with at least three layers in common. Empty for fewer than two rankings.
Table agreement_table(const Collection& collection);

}  // namespace molt::report
