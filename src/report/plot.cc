#include "report/plot.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "report/text.h"

namespace molt::report::plot {

std::string rgb(const Colour& colour) {
  return concat("rgb '", colour.light, "'");
}

std::string data(const std::string& name, const std::string& lines) {
  return concat("$", name, " << END\n", lines, "END\n");
}

std::string Frame::at(double x, double y) const {
  return concat("screen ", fixed((left + x) / width, 5), ", screen ", fixed((bottom + y) / height, 5));
}

std::string Frame::commands(const std::string& title, const std::string& x_title, const std::string& y_title) const {
  const auto margin = [](const char* name, double pixels, int size) {
    return concat("set ", name, " at screen ", fixed(pixels / size, 5), "\n");
  };
  const std::string colour = concat(" textcolor ", rgb(ink));
  const auto title_at = [&](const std::string& text, double x, double y, const char* more) {
    return text.empty() ? "" : concat("set label ", quoted(text), " at ", at(x, y), " center ", more, colour, "\n");
  };
  return concat(
      margin("lmargin", left, width), margin("rmargin", width - right, width), margin("bmargin", bottom, height),
      margin("tmargin", height - top, height), "set border 3 lc ", rgb(ink), " lw 1\n", "set tics nomirror out scale 0.5", colour,
      "\nset grid lc ", rgb(faint), " lt 1 lw 1\n",
      // Else gnuplot clears a disc of the ground's colour around each point.
      "set pointintervalbox 0\nset errorbars small\n", title_at(title, plot_width() / 2, plot_height() + top - 20, "font ',15'"),
      title_at(x_title, plot_width() / 2, 18 - bottom, ""), title_at(y_title, 18 - left, plot_height() / 2, "rotate by 90"),
      "set key at ", at(plot_width() / 2, plot_height() + (top - 28) / 2.0), " center center horizontal maxrows 1 Left reverse",
      " samplen 2 width 1", colour, "\n");
}

std::string Frame::key_at_right() const {
  return concat("set key at ", at(plot_width() + 14, plot_height() + 6),
                " left top vertical maxrows 40 Left reverse samplen 2 width 0\n");
}

void Range::add(double value) {
  low = std::min(low, value);
  high = std::max(high, value);
}

Range Range::padded(double fraction, double least) const {
  const double width = std::max(high - low, least), middle = (low + high) / 2;
  return {middle - width * (0.5 + fraction), middle + width * (0.5 + fraction)};
}

std::string Range::text() const {
  return concat("[", low, ":", high, "]");
}

std::string logarithmic(const Range& range) {
  std::string ticks;
  const int first = static_cast<int>(std::floor(std::log10(range.low)));
  const int last = static_cast<int>(std::ceil(std::log10(range.high)));
  for (int decade = first; decade <= last; ++decade) {
    for (const int digit : {1, 2, 5}) {
      if (digit > 1 && last - first > 4) continue;
      ticks += concat(ticks.empty() ? "" : ", ", digit * std::pow(10.0, decade));
    }
  }
  return concat("set logscale y\nset ytics (", ticks, ")\n");
}

std::string unique_name(const std::string& text, const std::vector<Figure>& figures) {
  const auto taken = [&](const std::string& name) {
    return std::any_of(figures.begin(), figures.end(), [&](const Figure& figure) { return figure.name == name; });
  };
  std::string name = slug(text);
  for (int i = 2; taken(name); ++i) name = concat(slug(text), "-", i);
  return name;
}

}  // namespace molt::report::plot
