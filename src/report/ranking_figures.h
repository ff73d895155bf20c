// Figures of rankings of layers.
#pragma once
#include <vector>

#include "report/collect.h"
#include "report/gnuplot.h"

namespace molt::report {

// The score of each layer, least important first; nothing for an order that nothing was measured for.
void add_importance(const LayerRanking& ranking, std::vector<Figure>& figures);
// The losses of the candidates while they trained.
void add_candidates(const LayerRanking& ranking, std::vector<Figure>& figures);
// The places of each layer in all rankings, from one to the next; nothing for fewer than two.
void add_places(const std::vector<LayerRanking>& rankings, std::vector<Figure>& figures);

}  // namespace molt::report
