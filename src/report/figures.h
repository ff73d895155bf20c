// The figures of a report.
#pragma once
#include <vector>

#include "report/collect.h"
#include "report/gnuplot.h"

namespace molt::report {

struct Figures {
  std::vector<Figure> frontier;    // throughput against score, one for each task
  std::vector<Figure> layouts;     // one strip a checkpoint; one figure, or none
  std::vector<Figure> losses;      // over tokens, one for each objective
  std::vector<Figure> importance;  // one for each ranking

  std::vector<const Figure*> all() const;
};

// What there is no data for is left out.
Figures draw_figures(const Collection& collection);

}  // namespace molt::report
