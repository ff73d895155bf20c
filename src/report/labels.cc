#include <algorithm>
#include <cmath>

#include "report/frontier.h"
#include "report/text.h"

namespace molt::report {

namespace label_parts {

constexpr double character_width = 7.6, line_height = 15, gap = 9, marker = 6;

struct Box {
  double left, bottom, right, top;

  double overlap(const Box& other) const {
    const double across = std::min(right, other.right) - std::max(left, other.left);
    const double along = std::min(top, other.top) - std::max(bottom, other.bottom);
    return across > 0 && along > 0 ? across * along : 0;
  }
  double area() const { return (right - left) * (top - bottom); }
};

Box around(double x, double y, double across, double along) {
  return {x - across, y - along, x + across, y + along};
}

// A line as a row of small boxes.
void add_line(const std::vector<Spot>& line, std::vector<Box>& taken) {
  constexpr double step = 6;
  for (std::size_t i = 1; i < line.size(); ++i) {
    const double x = line[i].x - line[i - 1].x, y = line[i].y - line[i - 1].y, steps = std::ceil(std::hypot(x, y) / step);
    for (double at = 0; at < steps; ++at)
      taken.push_back(around(line[i - 1].x + x * at / steps, line[i - 1].y + y * at / steps, 3, 3));
  }
}

}  // namespace label_parts

void place_labels(std::vector<Label>& labels, const std::vector<Spot>& line, double width, double height) {
  using namespace label_parts;
  std::vector<Box> taken;
  add_line(line, taken);
  for (const Label& label : labels) {
    taken.push_back(around(label.x, label.y, marker, marker));
    taken.push_back(around(label.x, label.y, 2, label.error));
    taken.push_back(around(label.x, label.y, label.spread, 2));
  }
  const Box frame{0, 0, width, height};
  for (Label& label : labels) {
    const double size = character_width * static_cast<double>(length(label.text));
    const double right = label.x + gap, left = label.x - gap - size, centre = label.x - size / 2;
    const double above = label.y + label.error + gap + line_height / 2, below = label.y - label.error - gap - line_height / 2;
    const double higher = label.y + gap + line_height / 2, lower = label.y - gap - line_height / 2;
    const Spot candidates[] = {{right, higher}, {left, higher}, {right, lower}, {left, lower}, {centre, above},
                               {centre, below}, {right, above}, {right, below}, {left, above}, {left, below}};
    double best = -1;
    for (const Spot& spot : candidates) {
      const Box box{spot.x, spot.y - line_height / 2, spot.x + size, spot.y + line_height / 2};
      double cost = 4 * (box.area() - box.overlap(frame));
      for (const Box& other : taken) cost += box.overlap(other);
      if (best >= 0 && cost >= best) continue;
      best = cost;
      label.left = spot.x;
      label.middle = spot.y;
    }
    taken.push_back({label.left, label.middle - line_height / 2, label.left + size, label.middle + line_height / 2});
  }
}

}  // namespace molt::report
