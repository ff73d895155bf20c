#include "report/figures.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "report/frontier.h"
#include "report/plot.h"
#include "report/ranking_figures.h"
#include "report/text.h"

namespace molt::report {

namespace figure_parts {

using plot::character_width;
using plot::data;
using plot::Frame;
using plot::name_width;
using plot::Range;
using plot::rgb;

// ---- losses ----

struct Unit {
  double size;
  const char* words;
};

Unit token_unit(double most) {
  if (most >= 2e9) return {1e9, " (billions)"};
  if (most >= 2e6) return {1e6, " (millions)"};
  if (most >= 2e3) return {1e3, " (thousands)"};
  return {1, ""};
}

struct LossPlots {
  std::string blocks, plots;
  Range losses;
  double most_tokens = 0;
  std::size_t count = 0, longest = 0;

  void add(const std::vector<CurvePoint>& points, const std::string& look) {
    if (points.empty()) return;
    std::string lines;
    for (const CurvePoint& point : points) {
      lines += concat(point.tokens, " ", point.loss, "\n");
      losses.add(point.loss);
      most_tokens = std::max(most_tokens, point.tokens);
    }
    const std::string name = concat("curve", ++count);
    blocks += data(name, lines);
    plots += concat(plots.empty() ? "" : ", \\\n  ", "$", name, " using ($1/unit):2 with ", look);
  }
};

// How the curve of held-out data looks but for its colour: each of several sets has points of its own.
std::string held_out_look(std::size_t set) {
  constexpr int points[] = {6, 4, 8, 12, 10};  // circle, square, triangle up, diamond, triangle down; all open
  return concat("linespoints pt ", points[set % std::size(points)], " ps 0.7 dt 2 lw 1.2 lc ");
}

void add_losses(const Collection& collection, const std::string& objective, std::vector<Figure>& figures) {
  LossPlots plots;
  std::set<std::string> held_out;
  for (const Curve& curve : collection.curves) {
    if (curve.objective != objective) continue;
    for (const auto& [set, points] : curve.held_out) {
      if (!points.empty()) held_out.insert(set);
    }
  }
  std::size_t index = 0;
  for (const Curve& curve : collection.curves) {
    if (curve.objective != objective) continue;
    const std::string colour = rgb(palette[index++ % std::size(palette)]), name = shortened(curve.name, name_width);
    plots.add(curve.training, concat(curve.training.size() == 1 ? "points pt 7 ps 0.6 lc " : "lines lw 1.6 lc ", colour,
                                     " title ", quoted(name)));
    if (!curve.training.empty()) plots.longest = std::max(plots.longest, length(name));
    for (const auto& [set, points] : curve.held_out) {
      const auto place = static_cast<std::size_t>(std::distance(held_out.begin(), held_out.lower_bound(set)));
      plots.add(points, concat(held_out_look(place), colour, " notitle"));
    }
  }
  if (plots.losses.empty()) return;
  std::size_t place = 0;
  for (const std::string& set : held_out) {
    const std::string name = held_out.size() == 1 ? "held out" : shortened("held out: " + set, name_width);
    plots.plots += concat(", \\\n  keyentry with ", held_out_look(place++), rgb(ink), " title ", quoted(name));
    plots.longest = std::max(plots.longest, length(name));
  }
  const bool spans_much = plots.losses.low > 0 && plots.losses.high > 20 * plots.losses.low;
  const std::string words = objective_words(objective), title = "Loss while training: " + words;
  const Unit unit = token_unit(plots.most_tokens);
  const bool staged = std::any_of(collection.checkpoints.begin(), collection.checkpoints.end(),
                                  [](const Checkpoint& checkpoint) { return !checkpoint.from.empty(); });
  const int key = static_cast<int>(72 + character_width * static_cast<double>(plots.longest));
  const Frame frame{760, 420, 98, key, 66, 48};
  figures.push_back(
      draw({.name = plot::unique_name("loss-" + objective, figures),
            .title = title,
            .width = frame.width,
            .height = frame.height,
            .commands = concat(frame.commands(title, concat(staged ? "tokens since the teacher" : "tokens", unit.words),
                                              concat(words, objective == "matching" ? "" : " (nats per token)")),
                               frame.key_at_right(), "set xrange [0:", std::max(plots.most_tokens / unit.size * 1.01, 1e-6),
                               "]\n", spans_much ? plot::logarithmic(plots.losses) : "", "unit = ", unit.size, "\n", plots.blocks,
                               "plot ", plots.plots, "\n")}));
}

// ---- layouts ----

struct Kind {
  std::string words;
  Colour colour;
};

Kind kind_of(const std::string& letter) {
  if (letter == "t") return {"attention", blue};
  if (letter == "swa") return {"sliding window", sky};
  if (letter == "m2") return {"Mamba", orange};
  if (letter == "i") return {"identity", muted};
  return {shortened(letter, name_width), pink};
}

void add_layouts(const Collection& collection, std::vector<Figure>& figures) {
  std::size_t rows = 0, layers = 0, longest = 0;
  std::string cells, dots, names;
  std::vector<Kind> kinds;
  for (const Checkpoint& checkpoint : collection.checkpoints) {
    if (checkpoint.layout.empty()) continue;
    const std::string name = shortened(checkpoint.name, name_width);
    names += concat(rows ? ", " : "", quoted(name), " ", rows);
    layers = std::max(layers, checkpoint.layout.size());
    longest = std::max(longest, length(name));
    for (std::size_t layer = 0; layer < checkpoint.layout.size(); ++layer) {
      const Kind kind = kind_of(checkpoint.layout[layer]);
      const auto same = [&](const Kind& known) { return known.words == kind.words; };
      if (std::none_of(kinds.begin(), kinds.end(), same)) kinds.push_back(kind);
      const auto x = static_cast<double>(layer), y = static_cast<double>(rows);
      cells += concat(x, " ", y, " ", x - 0.45, " ", x + 0.45, " ", y - 0.36, " ", y + 0.36, " 0x", kind.colour.light + 1, "\n");
    }
    for (const std::int64_t layer : checkpoint.converted) dots += concat(layer, " ", rows, "\n");
    ++rows;
  }
  if (rows == 0) return;
  std::string plots = "$cells using 1:2:3:4:5:6:7 with boxxyerror fs solid 1 noborder lc rgb variable notitle";
  for (const Kind& kind : kinds)
    plots += concat(", \\\n  keyentry with boxes fs solid 1 noborder lc ", rgb(kind.colour), " title ", quoted(kind.words));
  if (!dots.empty()) {
    plots += concat(", \\\n  $dots using 1:2 with points pt 7 ps 0.55 lc ", rgb(ink), " title 'converted here'");
    dots = data("dots", dots);
  }
  const int left = static_cast<int>(28 + character_width * static_cast<double>(longest));
  const Frame frame{
      std::max(760, left + 40 + 13 * static_cast<int>(layers)), 150 + 28 * static_cast<int>(rows), left, 24, 66, 84};
  const std::string title = "The mixer of each layer";
  figures.push_back(draw(
      {.name = "layouts",
       .title = title,
       .width = frame.width,
       .height = frame.height,
       .commands = concat(frame.commands(title, "layer", ""), "unset grid\nset border 0\nset tics scale 0\nset xtics 0, ",
                          layers > 60   ? 10
                          : layers > 24 ? 5
                                        : 1,
                          "\nset ytics (", names, ")\nset xrange [-0.6:", static_cast<double>(layers) - 0.4, "]\nset yrange [",
                          static_cast<double>(rows) - 0.5, ":-0.5]\n", data("cells", cells), dots, "plot ", plots, "\n")}));
}

}  // namespace figure_parts

std::vector<const Figure*> Figures::all() const {
  std::vector<const Figure*> list;
  for (const auto* group : {&frontier, &layouts, &losses, &importance}) {
    for (const Figure& figure : *group) list.push_back(&figure);
  }
  return list;
}

Figures draw_figures(const Collection& collection) {
  Figures figures;
  if (const auto setting = main_setting(collection)) {
    for (const std::string& task : collection.tasks()) add_frontier(collection, task, *setting, figures.frontier);
  }
  figure_parts::add_layouts(collection, figures.layouts);
  std::set<std::string> drawn;
  for (const Curve& curve : collection.curves) {
    if (drawn.insert(curve.objective).second) figure_parts::add_losses(collection, curve.objective, figures.losses);
  }
  for (const LayerRanking& ranking : collection.rankings) {
    add_importance(ranking, figures.importance);
    add_candidates(ranking, figures.importance);
  }
  add_places(collection.rankings, figures.importance);
  return figures;
}

}  // namespace molt::report
