#include "report/frontier.h"

#include <algorithm>

#include "base/error.h"
#include "report/plot.h"
#include "report/text.h"

namespace molt::report {

namespace frontier_parts {

struct Point {
  const Checkpoint* checkpoint;
  const Throughput* rate;
  double score, error;  // percent

  // "x y xlow xhigh ylow yhigh"
  std::string line() const {
    return concat(rate->median, " ", score, " ", rate->lowest, " ", rate->highest, " ", score - error, " ", score + error, "\n");
  }
};

std::vector<Point> points_of(const Collection& collection, const std::string& task, const Setting& setting) {
  std::vector<Point> points;
  for (const Checkpoint& checkpoint : collection.checkpoints) {
    const Throughput* rate = measured(checkpoint, setting);
    const auto score = checkpoint.scores.find(task);
    if (!rate || score == checkpoint.scores.end()) continue;
    points.push_back({&checkpoint, rate, 100 * score->second.accuracy, 100 * score->second.standard_error});
  }
  return points;
}

// Those that no other beats in both, from fast to slow.
std::vector<Point> undominated(std::vector<Point> points) {
  std::sort(points.begin(), points.end(), [](const Point& a, const Point& b) {
    return std::pair(a.rate->median, a.score) > std::pair(b.rate->median, b.score);
  });
  std::vector<Point> kept;
  for (const Point& point : points) {
    if (kept.empty() || point.score > kept.back().score) kept.push_back(point);
  }
  return kept;
}

// "mmr-4 (4/12)": so many of the layers are Mamba.
std::string label_text(const Checkpoint& checkpoint) {
  const std::string name = shortened(checkpoint.name, 28);
  return checkpoint.mamba_layers() > 0 ? concat(name, " (", checkpoint.mamba_layers(), "/", checkpoint.layout.size(), ")") : name;
}

std::string labels(const std::vector<Point>& points, const plot::Frame& frame, const plot::Range& x, const plot::Range& y) {
  const double across = frame.plot_width() / (x.high - x.low), along = frame.plot_height() / (y.high - y.low);
  const auto spot = [&](const Point& point) {
    return Spot{(point.rate->median - x.low) * across, (point.score - y.low) * along};
  };
  std::vector<Label> labels;
  std::vector<Spot> line;
  for (const Point& point : points) {
    Label label;
    label.x = spot(point).x;
    label.y = spot(point).y;
    label.error = point.error * along;
    label.spread = std::max(point.rate->highest - point.rate->median, point.rate->median - point.rate->lowest) * across;
    label.text = label_text(*point.checkpoint);
    labels.push_back(std::move(label));
  }
  for (const Point& point : undominated(points)) line.push_back(spot(point));
  place_labels(labels, line, frame.plot_width(), frame.plot_height());
  std::string commands;
  for (const Label& label : labels) {
    commands += concat("set label ", quoted(label.text), " at ", frame.at(label.left, label.middle), " left front textcolor ",
                       plot::rgb(ink), " font ',12'\n");
  }
  return commands;
}

}  // namespace frontier_parts

void add_frontier(const Collection& collection, const std::string& task, const Setting& setting, std::vector<Figure>& figures) {
  using namespace frontier_parts;
  const std::vector<Point> points = points_of(collection, task, setting);
  if (points.empty()) return;
  plot::Range x, y;
  std::string teacher, others, edge;
  for (const Point& point : points) {
    x.add(point.rate->lowest);
    x.add(point.rate->highest);
    y.add(point.score - point.error);
    y.add(point.score + point.error);
    (point.checkpoint == collection.teacher() ? teacher : others) += point.line();
  }
  for (const Point& point : undominated(points)) edge += concat(point.rate->median, " ", point.score, "\n");
  x = x.padded(0.12, std::max(0.2 * x.high, 1e-6));
  y = y.padded(0.15, 4);
  y.high = std::min(y.high, 102.0);

  const plot::Frame frame{760, 470, 80, 24, 66, 72};
  std::string blocks = plot::data("edge", edge);
  std::string plots = concat("$edge using 1:2 with lines lw 1.5 dt 2 lc ", plot::rgb(muted), " title 'frontier'");
  const auto add_points = [&](const char* name, const std::string& lines, int shape, const Colour& colour,
                              const std::string& title) {
    if (lines.empty()) return;
    blocks += plot::data(name, lines);
    plots += concat(", \\\n  $", name, " using 1:2:3:4:5:6 with xyerrorbars pt ", shape, " ps 1.1 lw 1.3 lc ", plot::rgb(colour),
                    " title ", quoted(title));
  };
  add_points("others", others, 7, blue, "checkpoints");
  add_points("teacher", teacher, 5, red, shortened(collection.teacher()->name, 28));
  figures.push_back(
      draw({.name = plot::unique_name(collection.tasks().size() > 1 ? "frontier-" + task : "frontier", figures),
            .title = concat("Score on ", task, " against throughput. Bars: standard error; slowest and fastest run."),
            .width = frame.width,
            .height = frame.height,
            .commands = concat(frame.commands(concat("Score on ", shortened(task, 40), " against throughput"),
                                              concat("tokens/s (", setting.words(), ")"), "score (%)"),
                               "set xrange ", x.text(), "\nset yrange ", y.text(), "\n", labels(points, frame, x, y), blocks,
                               "plot ", plots, "\n")}));
}

}  // namespace molt::report
