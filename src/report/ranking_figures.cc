#include "report/ranking_figures.h"

#include <algorithm>
#include <map>

#include "base/error.h"
#include "report/plot.h"
#include "report/ranking_tables.h"
#include "report/text.h"

namespace molt::report {

namespace ranking_figure_parts {

using plot::character_width;
using plot::data;
using plot::Frame;
using plot::name_width;
using plot::Range;
using plot::rgb;

std::string importance_title(const LayerRanking& ranking) {
  const std::string how = ranking.method == "loo"   ? "each left out"
                          : ranking.method == "mmr" ? "each replaced by a trained Mamba"
                          : ranking.method == "kl"  ? "each restored among Mamba layers"
                                                    : shortened(ranking.method, name_width);
  return concat("Layer importance (", shortened(ranking.name, 16), "), ", how, ranking.complete ? "" : " (not finished)");
}

bool is_chosen(const LayerRanking& ranking, std::int64_t layer) {
  return std::find(ranking.chosen.begin(), ranking.chosen.end(), layer) != ranking.chosen.end();
}

// A layer's place in each ranking that has it, from left to right.
struct Path {
  std::vector<std::pair<std::size_t, std::size_t>> nodes;  // ranking, place from 1
};

// Neighbouring rankings are joined, others are not.
std::string lines_of(const Path& path) {
  std::string lines;
  for (std::size_t i = 0; i < path.nodes.size(); ++i) {
    const auto [ranking, place] = path.nodes[i];
    if (i > 0 && path.nodes[i - 1].first + 1 != ranking) lines += "\n";
    lines += concat(ranking, " ", place, "\n");
  }
  return lines;
}

}  // namespace ranking_figure_parts

void add_importance(const LayerRanking& ranking, std::vector<Figure>& figures) {
  using namespace ranking_figure_parts;
  if (ranking.layers.empty() || ranking.measure.empty()) return;
  std::string chosen, others, errors, ticks;
  Range bars;
  for (std::size_t i = 0; i < ranking.layers.size(); ++i) {
    const LayerFigure& figure = ranking.layers[i];
    (is_chosen(ranking, figure.layer) ? chosen : others) += concat(i, " ", figure.score, "\n");
    errors += concat(i, " ", figure.score, " ", figure.standard_error, "\n");
    ticks += concat(i ? ", " : "", "'", figure.layer, "' ", i);
    bars.add(figure.score - figure.standard_error);
    bars.add(figure.score + figure.standard_error);
  }
  if (ranking.baseline && *ranking.baseline > 0) bars.add(*ranking.baseline);
  const bool spans_much = bars.low > 0 && bars.high > 30 * bars.low;
  const double floor = spans_much ? bars.low / 1.5 : std::min(0.0, bars.low - 0.06 * (bars.high - bars.low));
  const double ceiling = spans_much ? bars.high * 1.3 : std::max(1.06 * bars.high, floor + 1e-6);

  std::string blocks = data("errors", errors), plots;
  const auto add_boxes = [&](const char* name, const std::string& lines, const Colour& colour, const char* title) {
    if (lines.empty()) return;
    blocks += data(name, lines);
    plots += concat("$", name, " using 1:2 with boxes fs solid 1 noborder lc ", rgb(colour), " title '", title, "', \\\n  ");
  };
  add_boxes("chosen", chosen, orange, "converted");
  add_boxes("others", others, blue, chosen.empty() ? "candidates" : "kept");
  plots += concat("$errors using 1:($2-$3):(0):(2*$3) with vectors nohead lw 1.4 lc ", rgb(ink), " notitle");
  if (ranking.baseline && *ranking.baseline > 0)
    plots += concat(", \\\n  ", *ranking.baseline, " with lines dt 2 lw 1.4 lc ", rgb(ink), " title 'baseline'");

  const auto count = static_cast<int>(ranking.layers.size());
  const Frame frame{std::max(760, 110 + 21 * count), 400, 84, 24, 66, 84};
  const std::string title = importance_title(ranking);
  figures.push_back(
      draw({.name = plot::unique_name("importance-" + ranking.name, figures),
            .title = title + ". Lines: standard error.",
            .width = frame.width,
            .height = frame.height,
            .commands = concat(frame.commands(title, "layer, least important first", ranking.measure),
                               "set boxwidth 0.72\nset xrange [-0.7:", count - 0.3, "]\nset yrange [", floor, ":", ceiling, "]\n",
                               spans_much ? plot::logarithmic(bars) : "", "set xtics scale 0 ", count > 20 ? "font ',10' (" : "(",
                               ticks, ")\nset grid noxtics\n", blocks, "plot ", plots, "\n")}));
}

void add_candidates(const LayerRanking& ranking, std::vector<Figure>& figures) {
  using namespace ranking_figure_parts;
  std::string blocks, plots;
  Range losses;
  double most_steps = 0;
  for (std::size_t i = 0; i < ranking.curves.size(); ++i) {
    const CandidateCurve& curve = ranking.curves[i];
    std::string lines;
    for (const auto& [step, loss] : curve.points) {
      lines += concat(step, " ", loss, "\n");
      losses.add(loss);
      most_steps = std::max(most_steps, step);
    }
    const std::string name = concat("candidate", i), words = curve.layer < 0 ? "none" : std::to_string(curve.layer);
    blocks += data(name, lines);
    // Dashes tell apart layers that share a colour.
    plots +=
        concat(plots.empty() ? "" : ", \\\n  ", "$", name, " using 1:2 with ", curve.points.size() == 1 ? "points pt 7" : "lines",
               " dt ", 1 + i / std::size(palette), " lw ", is_chosen(ranking, curve.layer) ? 2.6 : 1.3, " lc ",
               rgb(palette[i % std::size(palette)]), " title '", words, "'");
  }
  if (losses.empty()) return;
  const bool spans_much = losses.low > 0 && losses.high > 20 * losses.low;
  const std::string title = concat("Candidates while they train (", shortened(ranking.name, 16), ")");
  const auto rows = static_cast<int>(std::min<std::size_t>(ranking.curves.size(), 40));
  const Frame frame{760, std::max(420, 140 + 17 * rows), 84, ranking.curves.size() > 40 ? 200 : 110, 66, 48};
  figures.push_back(draw({.name = plot::unique_name("candidates-" + ranking.name, figures),
                          .title = title + ", by layer. Thick: converted.",
                          .width = frame.width,
                          .height = frame.height,
                          .commands = concat(frame.commands(title, "step", ranking.divergence + " (nats per token)"),
                                             frame.key_at_right(), "set xrange [0:", most_steps * 1.01, "]\n",
                                             spans_much ? plot::logarithmic(losses) : "", blocks, "plot ", plots, "\n")}));
}

void add_places(const std::vector<LayerRanking>& rankings, std::vector<Figure>& figures) {
  using namespace ranking_figure_parts;
  if (rankings.size() < 2) return;
  std::map<std::int64_t, Path> paths;
  std::size_t most = 0;
  std::string ticks;
  for (std::size_t i = 0; i < rankings.size(); ++i) {
    const std::vector<LayerFigure>& layers = rankings[i].layers;
    for (std::size_t place = 0; place < layers.size(); ++place) paths[layers[place].layer].nodes.emplace_back(i, place + 1);
    most = std::max(most, layers.size());
    ticks += concat(i ? ", " : "", quoted(shortened(ranking_words(rankings[i]), name_width)), " ", i);
  }
  std::string blocks, plots, left, right;
  std::size_t index = 0;
  for (const auto& [layer, path] : paths) {
    const std::string name = concat("path", index), colour = rgb(palette[index++ % std::size(palette)]);
    blocks += data(name, lines_of(path));
    plots += concat(plots.empty() ? "" : ", \\\n  ", "$", name, " using 1:2 with linespoints pt 7 ps 0.6 lw 1.6 lc ", colour,
                    " notitle");
    left += concat(path.nodes.front().first, " ", path.nodes.front().second, " ", layer, "\n");
    right += concat(path.nodes.back().first, " ", path.nodes.back().second, " ", layer, "\n");
  }
  const std::string look = concat(" font ',10' textcolor ", rgb(ink), " notitle");
  plots += concat(", \\\n  $left using 1:2:3 with labels right offset -0.8,0", look,
                  ", \\\n  $right using 1:2:3 with labels left offset 0.8,0", look);
  const auto columns = static_cast<int>(rankings.size());
  const Frame frame{std::max(760, 120 + 170 * columns), 132 + 18 * static_cast<int>(most), 84, 24, 66, 48};
  const std::string title = "Places of the layers in each ranking";
  figures.push_back(
      draw({.name = plot::unique_name("places", figures),
            .title = title + ", least important first.",
            .width = frame.width,
            .height = frame.height,
            .commands = concat(frame.commands(title, "ranking", "place"), "set xrange [-0.5:", columns - 0.5, "]\nset yrange [",
                               static_cast<double>(most) + 0.6, ":0.4]\nset xtics scale 0 (", ticks, ")\nset grid noytics\n",
                               blocks, data("left", left), data("right", right), "plot ", plots, "\n")}));
}

}  // namespace molt::report
