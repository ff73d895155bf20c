// The parts that gnuplot scripts of figures are made of: each returns commands.
#pragma once
#include <limits>
#include <string>
#include <vector>

#include "report/gnuplot.h"

namespace molt::report::plot {

inline constexpr std::size_t name_width = 24;   // characters at most of a name beside a figure
inline constexpr double character_width = 8.6;  // pixels, of a wide font

std::string rgb(const Colour& colour);  // "rgb '#24292f'"
// One block of numbers ($name) for a plot command to use.
std::string data(const std::string& name, const std::string& lines);

// A figure by pixels, so that what is set beside points and around them is known to fit.
struct Frame {
  int width, height;             // of the whole
  int left, right, bottom, top;  // margins around the plot

  double plot_width() const { return width - left - right; }
  double plot_height() const { return height - bottom - top; }
  // A place in pixels from the lower left corner of the plot: "screen x,screen y".
  std::string at(double x, double y) const;
  // Margins, looks of border, ticks and grid, title, axis titles ("" for none), and the key in a row below the title.
  std::string commands(const std::string& title, const std::string& x_title, const std::string& y_title) const;
  // The key in a column at the right instead.
  std::string key_at_right() const;
};

struct Range {
  double low = std::numeric_limits<double>::infinity(), high = -low;

  void add(double value);
  bool empty() const { return low > high; }
  // Wider by a fraction of itself at both ends, and at least `least` wide before.
  Range padded(double fraction, double least) const;
  std::string text() const;  // "[low:high]"
};

// Makes y logarithmic for values in a range above 0, with ticks at 1, 2 and 5 of each decade.
std::string logarithmic(const Range& range);

// A name for a figure that no other of its group has.
std::string unique_name(const std::string& text, const std::vector<Figure>& figures);

}  // namespace molt::report::plot
