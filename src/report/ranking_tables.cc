#include "report/ranking_tables.h"

#include <set>

#include "base/error.h"
#include "report/rank_correlation.h"
#include "report/text.h"

namespace molt::report {

namespace ranking_table_parts {

std::string figure_text(const LayerRanking& ranking, std::int64_t layer) {
  for (std::size_t place = 0; place < ranking.layers.size(); ++place) {
    const LayerFigure& figure = ranking.layers[place];
    if (figure.layer != layer) continue;
    if (ranking.measure.empty()) return std::to_string(place + 1);
    return concat(place + 1, " (", fixed(figure.score, 3), " ± ", fixed(figure.standard_error, 3), ")");
  }
  return "";
}

}  // namespace ranking_table_parts

std::string ranking_words(const LayerRanking& ranking) {
  return ranking.name == ranking.method ? ranking.name : concat(ranking.name, " (", ranking.method, ")");
}

Table places_table(const Collection& collection) {
  Table table;
  table.columns.push_back({"layer", true});
  std::set<std::int64_t> layers;
  for (const LayerRanking& ranking : collection.rankings) {
    table.columns.push_back({ranking_words(ranking), true});
    for (const LayerFigure& figure : ranking.layers) layers.insert(figure.layer);
  }
  for (const std::int64_t layer : layers) {
    table.rows.push_back({std::to_string(layer)});
    for (const LayerRanking& ranking : collection.rankings) {
      table.rows.back().push_back(ranking_table_parts::figure_text(ranking, layer));
    }
  }
  return table;
}

Table agreement_table(const Collection& collection) {
  Table table;
  table.columns = {{"rankings"}, {"layers in both", true}, {"Spearman's ρ", true}, {"Kendall's τ", true}, {"first half", true}};
  const std::vector<LayerRanking>& rankings = collection.rankings;
  for (std::size_t i = 0; i < rankings.size(); ++i) {
    for (std::size_t j = i + 1; j < rankings.size(); ++j) {
      const auto found = rank_correlation(rankings[i], rankings[j]);
      if (!found) continue;
      table.rows.push_back({concat(ranking_words(rankings[i]), " and ", ranking_words(rankings[j])),
                            std::to_string(found->layers), fixed(found->spearman, 2), fixed(found->kendall, 2),
                            concat(found->first_half, " of ", found->layers / 2)});
    }
  }
  return table;
}

}  // namespace molt::report
