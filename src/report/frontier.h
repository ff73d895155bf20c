// Throughput against score: where a conversion pays.
#pragma once
#include <string>
#include <vector>

#include "report/collect.h"
#include "report/gnuplot.h"
#include "report/tables.h"

namespace molt::report {

// Adds the figure of a task, unless no checkpoint has both a score and a throughput in this setting.
void add_frontier(const Collection& collection, const std::string& task, const Setting& setting, std::vector<Figure>& figures);

// A text beside a point, in pixels from the lower left corner.
struct Label {
  double x = 0, y = 0;           // of the point
  double error = 0, spread = 0;  // reach of its error bars up and down, left and right
  std::string text;
  double left = 0, middle = 0;  // where the text begins, and its middle line: set by place_labels
};

struct Spot {
  double x = 0, y = 0;
};

// Gives each label the place beside its point where it is least in the way of other labels, points, error bars, lines along
// `line`, and the frame's edge.
void place_labels(std::vector<Label>& labels, const std::vector<Spot>& line, double width, double height);

}  // namespace molt::report
